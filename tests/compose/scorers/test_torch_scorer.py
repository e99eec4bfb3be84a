import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from loraloom.adapters.arithmetic.factors import Term
from loraloom.adapters.arithmetic.registry import combine
from loraloom.adapters.methods import Method
from loraloom.adapters.normal import normalise
from loraloom.adapters.weights import read_factors
from loraloom.compose.errors import InvalidPool, InvalidSpec
from loraloom.compose.scorers import torch_scorer
from loraloom.compose.scorers.torch_scorer import TorchScorer, load_model
from loraloom.compose.scoring import Row, RowScore, Weights
from tests.tiny_models import MakeAdapter

MakePool = Callable[..., list[Path]]
ROWS = (
    Row((1, 5, 9, 20, 33), (7, 8, 2)),
    Row((1, 5, 9, 41), (17, 2)),
    Row((1, 5, 9, 20, 21, 22, 50, 51), (60, 61, 62, 63, 2)),
    Row((1, 5, 9, 20, 33), (9, 2)),
    Row((1, 5, 9), (90,)),
)
POPULATION = ((0.5, -0.7, 1.2), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (-1.1, 0.4, 0.3), (1 / 3, 1 / 3, 1 / 3))
TARGETS = (["q_proj", "v_proj"], ["k_proj", "down_proj"], ["q_proj", "o_proj", "gate_proj", "up_proj"])


@pytest.fixture
def make_pool(make_adapter: MakeAdapter, tmp_path: Path) -> MakePool:
    """A callable `make_pool(targets, ranks, **fields) -> folders` of adapters in normal form, one for each."""

    def make(targets: Sequence[Sequence[str]], ranks: Sequence[int], **fields: Any) -> list[Path]:
        folders = []
        for seed, (names, rank) in enumerate(zip(targets, ranks, strict=True)):
            given = make_adapter(f"a{seed}", seed=seed, target_modules=list(names), r=rank, **fields)
            folders.append(tmp_path / f"normal-{seed}")
            folders[-1].mkdir()
            normalise(given, folders[-1])
        return folders

    return make


@pytest.fixture
def pool(make_pool: MakePool) -> list[Path]:
    """Adapters of one rank on modules of which some are in several."""
    return make_pool(TARGETS, (4, 4, 4))


@pytest.fixture
def scorer(tiny_base: Path, pool: list[Path]) -> Iterator[TorchScorer]:
    scorer = TorchScorer(load_model(tiny_base, "cpu"), pool, "exact")
    yield scorer
    scorer.close()


def merged(base: Path, pool: Sequence[Path], method: str, weights: Weights) -> PreTrainedModel:
    """The base in float64 with the mixture that the arithmetic makes written into its weights."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    given = [read_factors(folder)[0] for folder in pool]
    for path in {path for modules in given for path in modules}:
        terms = [Term(weight, modules[path]) for weight, modules in zip(weights, given, strict=True) if path in modules]
        factors = combine(Method(method), terms, path).factors
        layer = model.get_submodule(path)
        layer.weight.data += factors.b.double() @ factors.a.double()
    return model


@torch.no_grad()
def reference(model: PreTrainedModel, row: Row) -> RowScore:
    """Of one row alone through the whole model; whether it is exact comes from generating it."""
    tokens = torch.tensor([row.prompt + row.answer])
    logits = model(tokens).logits[0, len(row.prompt) - 1 : -1].log_softmax(-1)
    nll = -sum(logits[place, token].item() for place, token in enumerate(row.answer))
    return RowScore(nll, len(row.answer), greedy(model, row.prompt, len(row.answer)) == list(row.answer))


def greedy(model: PreTrainedModel, prompt: Sequence[int], limit: int) -> list[int]:
    """The likeliest tokens, found without a cache."""
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(limit):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


def until(end: int, tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens


def with_greedy_rows(model: PreTrainedModel) -> list[Row]:
    """The rows, and some more whose answers are the model's own, whole and with the last token changed."""
    own = [Row(row.prompt, tuple(greedy(model, row.prompt, 4))) for row in ROWS[:2]]
    return [*ROWS, *own, Row(own[0].prompt, (*own[0].answer[:-1], (own[0].answer[-1] + 1) % 96))]


def assert_alike(found: Sequence[RowScore], expected: Sequence[RowScore], tolerance: float = 1e-5) -> None:
    assert [(each.tokens, each.exact) for each in found] == [(each.tokens, each.exact) for each in expected]
    assert [each.nll for each in found] == pytest.approx([each.nll for each in expected], abs=tolerance, rel=tolerance)


@pytest.mark.parametrize("method", ["exact", "lorahub"])
@pytest.mark.parametrize("weights", POPULATION)
def test_scores_are_those_of_the_mixture_written_out(
    method: str, weights: Weights, tiny_base: Path, pool: list[Path]
) -> None:
    model = merged(tiny_base, pool, method, weights)
    rows = with_greedy_rows(model)
    found = TorchScorer(load_model(tiny_base, "cpu"), pool, method).score([weights], rows)[0]
    assert_alike(found, [reference(model, row) for row in rows])
    assert {each.exact for each in found} == {True, False}


def test_ranks_may_differ_with_exact(tiny_base: Path, make_pool: MakePool) -> None:
    pool = make_pool((TARGETS[0], TARGETS[0], TARGETS[2]), (2, 8, 3))
    weights = (0.9, -0.5, 0.7)
    found = TorchScorer(load_model(tiny_base, "cpu"), pool, "exact").score([weights], ROWS)[0]
    model = merged(tiny_base, pool, "exact", weights)
    assert_alike(found, [reference(model, row) for row in ROWS])


@pytest.mark.parametrize("method", ["exact", "lorahub"])
@pytest.mark.parametrize("batch_tokens", [1, 20, 64, 10_000])
def test_a_population_scores_as_its_candidates_one_by_one(
    method: str, batch_tokens: int, tiny_base: Path, pool: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_scorer, "LEAST_TOKENS", 1)
    model = load_model(tiny_base, "cpu")
    together = TorchScorer(model, pool, method, batch_tokens=batch_tokens)
    found = together.score(POPULATION, ROWS)
    together.close()
    alone = TorchScorer(model, pool, method)
    for weights, scores in zip(POPULATION, found, strict=True):
        assert_alike(scores, alone.score([weights], ROWS)[0])


def test_rows_that_share_nothing_are_scored_too(scorer: TorchScorer, tiny_base: Path, pool: list[Path]) -> None:
    rows = [Row((first, 3, 4), (5, first)) for first in range(30, 90)]
    model = merged(tiny_base, pool, "exact", POPULATION[0])
    assert_alike(scorer.score(POPULATION[:1], rows)[0], [reference(model, row) for row in rows])


def test_the_same_twice_is_the_same_to_the_bit(tiny_base: Path, pool: list[Path]) -> None:
    first, second = (TorchScorer(load_model(tiny_base, "cpu"), pool, "lorahub") for _ in range(2))
    found = first.score(POPULATION, ROWS)
    assert first.score(POPULATION, ROWS) == found
    assert second.score(POPULATION, ROWS) == found


def test_weights_of_zero_are_the_base(scorer: TorchScorer, tiny_base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float64)
    assert_alike(scorer.score([(0.0, 0.0, 0.0)], ROWS)[0], [reference(model, row) for row in ROWS])


def test_nothing_of_a_candidate_stays(scorer: TorchScorer) -> None:
    base = scorer.score([(0.0, 0.0, 0.0)], ROWS)
    others = scorer.score(POPULATION[3:4], ROWS)
    assert others != base
    assert scorer.score([(0.0, 0.0, 0.0)], ROWS) == base


def test_closing_gives_the_model_back(tiny_base: Path, pool: list[Path]) -> None:
    model = load_model(tiny_base, "cpu")
    before = dict(model.named_modules())
    scorer = TorchScorer(model, pool, "exact")
    assert dict(model.named_modules()) != before
    scorer.close()
    assert dict(model.named_modules()) == before


class Stops:
    """Gives up chosen candidates once a number of rows is known, and notes what it was asked."""

    def __init__(self, rows: int, candidates: Sequence[int]) -> None:
        self.rows = rows
        self.candidates = candidates
        self.asked: list[tuple[int, tuple[RowScore, ...]]] = []

    def __call__(self, candidate: int, scores: Sequence[RowScore]) -> bool:
        self.asked.append((candidate, tuple(scores)))
        return candidate in self.candidates and len(scores) >= self.rows


@pytest.mark.parametrize("batch_tokens", [1, 40])
@pytest.mark.parametrize("method", ["exact", "lorahub"])
def test_a_candidate_that_is_given_up_has_its_first_scores_and_the_others_go_on(
    method: str, batch_tokens: int, tiny_base: Path, pool: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_scorer, "LEAST_TOKENS", 1)
    scorer = TorchScorer(load_model(tiny_base, "cpu"), pool, method, batch_tokens=batch_tokens)
    whole = scorer.score(POPULATION, ROWS)
    stops = Stops(2, (1, 3))
    found = scorer.score(POPULATION, ROWS, stops)
    for number, (scores, all_scores) in enumerate(zip(found, whole, strict=True)):
        assert_alike(scores, all_scores[: len(scores)])
        assert len(scores) == len(ROWS) if number not in (1, 3) else 2 <= len(scores) < len(ROWS)
    assert {candidate for candidate, _ in stops.asked} == set(range(len(POPULATION)))
    assert all(0 < len(scores) < len(ROWS) for _, scores in stops.asked), "there is nothing to stop at the end"
    for candidate, scores in stops.asked:
        assert_alike(scores, whole[candidate][: len(scores)])


def test_all_may_be_given_up(tiny_base: Path, pool: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_scorer, "LEAST_TOKENS", 1)
    scorer = TorchScorer(load_model(tiny_base, "cpu"), pool, "exact", batch_tokens=30)
    found = scorer.score(POPULATION, ROWS, lambda candidate, scores: True)
    assert all(0 < len(scores) < len(ROWS) for scores in found)


def test_numbers_out_of_range_are_an_infinite_loss(scorer: TorchScorer) -> None:
    found = scorer.score([(1e30, -1e30, 1e30), (0.0, 0.0, 0.0)], ROWS)
    assert all(each.nll == math.inf and not each.exact for each in found[0])
    assert all(math.isfinite(each.nll) for each in found[1])


def test_answers_are_the_greedy_ones(scorer: TorchScorer, tiny_base: Path, pool: list[Path]) -> None:
    weights = POPULATION[0]
    prompts = [row.prompt for row in ROWS]
    model = merged(tiny_base, pool, "exact", weights)
    found = scorer.answers(weights, prompts, 6)
    assert found == [until(2, greedy(model, prompt, 6)) for prompt in prompts]
    assert scorer.answers(weights, [], 6) == []


def test_answers_end_before_the_token_that_ends_the_turn(tiny_base: Path, pool: list[Path]) -> None:
    weights = POPULATION[0]
    prompts = [row.prompt for row in ROWS]
    reference = merged(tiny_base, pool, "exact", weights)
    wanted = [greedy(reference, prompt, 6) for prompt in prompts]
    end = wanted[0][3]
    model = load_model(tiny_base, "cpu")
    assert model.generation_config is not None
    for ends in (end, [95, end]):
        model.generation_config.eos_token_id = ends
        scorer = TorchScorer(model, pool, "exact")
        cut = [until(end, tokens) for tokens in wanted]
        assert scorer.answers(weights, prompts, 6) == cut
        assert len(cut[0]) < 6
        scorer.close()


def test_the_same_scores_come_from_a_pool_of_one(tiny_base: Path, pool: list[Path]) -> None:
    found = TorchScorer(load_model(tiny_base, "cpu"), pool[:1], "lorahub").score([(1.0,), (-1.0,)], ROWS)
    assert_alike(found[0], found[1])
    alone = TorchScorer(load_model(tiny_base, "cpu"), pool, "exact").score([(1.0, 0.0, 0.0)], ROWS)
    assert_alike(found[0], alone[0])


def test_lorahub_refuses_ranks_that_differ(tiny_base: Path, make_pool: MakePool) -> None:
    pool = make_pool((TARGETS[0], TARGETS[2]), (2, 4))
    with pytest.raises(InvalidPool, match=r"q_proj these have ranks 2, 4: use the method exact"):
        TorchScorer(load_model(tiny_base, "cpu"), pool, "lorahub")


def test_a_damaged_adapter_is_refused(tiny_base: Path, pool: list[Path]) -> None:
    (pool[1] / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(InvalidPool, match="normal-1 cannot be composed"):
        TorchScorer(load_model(tiny_base, "cpu"), pool, "exact")


def test_a_base_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="cannot be loaded as a causal language model"):
        load_model(tmp_path, "cpu")


def test_a_model_is_loaded_in_float32_without_gradients(tiny_base: Path) -> None:
    model = load_model(tiny_base, "cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


def test_random_populations_score_alike_in_any_company(tiny_base: Path, pool: list[Path]) -> None:
    drawn = random.Random(0)
    population = [tuple(drawn.uniform(-1.5, 1.5) for _ in pool) for _ in range(12)]
    scorer = TorchScorer(load_model(tiny_base, "cpu"), pool, "lorahub")
    together = scorer.score(population, ROWS)
    for weights, scores in zip(population, together, strict=True):
        assert_alike(scorer.score([weights], ROWS)[0], scores)
