"""The reference that answers of engines are judged by."""

import pytest
import torch

from tests.gpu.models import SMALL
from tests.gpu.proxy_cases import ALPHAS, Answer, Case, Reference, cases, judgement
from tests.gpu.proxy_mixed import CUDA, DIRECT, STEERING, Comparison, material

WANTED = cases(SMALL.words, list(STEERING), *DIRECT)


def test_everything_is_asked_for() -> None:
    assert len({(case.model, case.prompt) for case in WANTED}) == len(WANTED) == 33
    assert {case.alpha for case in WANTED if case.steering} == set(ALPHAS)
    assert {case.model for case in WANTED} >= {"smollm2", "own", "one~0.3", "two~2", "1*own+1*one~1"}


def test_a_token_falls_short_by_what_its_logit_lacks_of_the_best() -> None:
    logits = torch.tensor([[1.0, 3.0], [2.0, 0.5]])
    told = torch.log_softmax(logits, -1)
    found = judgement(logits, Answer((1, 1), (float(told[0, 1]), float(told[1, 1]) - 0.25)))
    assert found.short == (0.0, 1.5)
    assert found.off == pytest.approx((0.0, 0.25))


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    made = material(tmp_path_factory.mktemp("pair"))
    return {
        name: Reference(made.models, made.steering, made.direct, getattr(torch, name))
        for name in ("float32", "bfloat16")
    }


def test_rounding_is_tolerated_and_another_strength_or_adapter_is_not(references: dict[str, Reference]) -> None:
    prompt, tokens = tuple(range(300, 312)), tuple(range(400, 408))
    right = Case(prompt, "two", 0.3)
    others = (
        Case(prompt, "two", 0.0),
        Case(prompt, "two", 1.0),
        Case(prompt, "one", 0.3),
        Case(prompt, "two", 0.3, "own"),
    )
    wanted = references["float32"].logits(right, tokens)

    def worst(case: Case) -> float:
        """Of what bfloat16 says of a case, where another was wanted."""
        logits = references["bfloat16"].logits(case, tokens)
        best = torch.log_softmax(logits, -1).max(-1)
        answer = Answer(tuple(best.indices.tolist()), tuple(best.values.tolist()))
        comparison = Comparison(CUDA[1], {right: answer}, {right: judgement(wanted, answer)})
        assert (right in comparison.wrong) == (comparison.worst(right) > 1)
        return comparison.worst(right)

    assert worst(right) < 0.7
    assert all(worst(case) > 1.3 for case in others)


def test_the_paths_of_the_reference_are_apart(references: dict[str, Reference]) -> None:
    prompt, tokens = tuple(range(300, 312)), (400, 401)
    reference = references["float32"]
    plain, unsteered = reference.logits(Case(prompt), tokens), reference.logits(Case(prompt, "two", 0.0), tokens)
    assert torch.equal(plain, unsteered)
    once, twice = (reference.logits(Case(prompt, "two", alpha), tokens) - plain for alpha in (1.0, 2.0))
    assert torch.allclose(twice, 2 * once, atol=1e-5)
    assert once.std() > 0.1


def test_no_path_is_left_out() -> None:
    assert [(each.dtype, "--enforce-eager" in each.arguments) for each in CUDA] == [
        ("float16", False),
        ("bfloat16", False),
        ("float16", True),
    ]
