"""Beside a port of the published loop: the same losses, and the same way through a search."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from loraloom.adapters.normal import normalise
from loraloom.compose.objective import Question, Task
from loraloom.compose.optimizers import OPTIMIZERS
from loraloom.compose.scorers.torch_scorer import TorchScorer
from loraloom.compose.scoring import Row, Weights
from loraloom.compose.search import search
from loraloom.compose.spec import Optimizer as Settings
from loraloom.compose.trials import Trial
from tests.compose.lorahub_port import BOUND, BUDGET, L1, Port
from tests.tiny_models import MakeAdapter

ROWS = (
    Row((1, 5, 9, 20, 33), (7, 8, 2)),
    Row((1, 5, 9, 41), (17, 2)),
    Row((1, 5, 9, 20, 21, 22, 50, 51), (60, 61, 62, 63, 2)),
    Row((1, 5, 9, 20, 33, 70), (9, 2)),
    Row((1, 5, 9, 11, 12), (13, 14, 2)),
)
ADAPTERS = 5
PAPER: dict[str, Any] = {"l1": L1, "bounds": (-BOUND, BOUND), "start": "zero", "early_stop": False}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Unexpected keyword arguments .*loraloom:UserWarning"),
    pytest.mark.filterwarnings("ignore:COBYLA. Invalid RHOEND:UserWarning"),  # nevergrad's, for scipy's new Cobyla
]


@pytest.fixture
def pool(make_adapter: MakeAdapter, tmp_path: Path) -> list[Path]:
    """Adapters of one rank on the same modules, which change the answers a lot."""
    folders = []
    for seed in range(ADAPTERS):
        given = make_adapter(f"a{seed}", seed=seed, lora_alpha=32, target_modules=["q_proj", "v_proj", "down_proj"])
        folders.append(tmp_path / f"normal-{seed}")
        folders[-1].mkdir()
        normalise(given, folders[-1])
    return folders


def model(base: Path, dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(base, dtype=dtype)


class Evaluate:
    """Trials of our scorer, with the objective of a job."""

    def __init__(self, scorer: TorchScorer) -> None:
        self._scorer = scorer
        self._task = Task("loss", tuple(Question((row,)) for row in ROWS))
        self.searched: list[tuple[Weights, float]] = []

    def __call__(self, kind: str, population: Sequence[Weights], incumbent: float | None = None) -> list[Trial]:
        assert incumbent is None
        losses = [self._task.loss(scores) for scores in self._scorer.score(population, ROWS)]
        if kind == "search":
            self.searched += zip(population, losses, strict=True)
        return [self._trial(kind, *each) for each in zip(population, losses, strict=True)]

    def _trial(self, kind: str, weights: Weights, loss: float) -> Trial:
        named = {str(place): weight for place, weight in enumerate(weights)}
        return Trial(0, 0, kind, named, loss, loss + L1 * sum(map(abs, weights)) / len(weights), False, 0.0)


@pytest.mark.parametrize("weights", [(0.5, -0.7, 1.2, 0.1, -1.5), (0.0,) * ADAPTERS, (1 / ADAPTERS,) * ADAPTERS])
def test_losses_agree(weights: Weights, tiny_base: Path, pool: list[Path]) -> None:
    port = Port.load(model(tiny_base, torch.float32), pool, ROWS)
    ours = Evaluate(TorchScorer(model(tiny_base, torch.float32), pool, "lorahub"))
    assert ours("mean", [weights])[0].loss == pytest.approx(port.loss(weights), abs=1e-4)


@pytest.mark.parametrize("optimizer", ["NGOpt", "CMA"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_search_with_the_papers_settings_goes_the_same_way(
    optimizer: str, seed: int, tiny_base: Path, pool: list[Path]
) -> None:
    """In float64, as far as the model is: Cobyla amplifies what float32 rounds away."""
    theirs = Port.load(model(tiny_base, torch.float64), pool, ROWS).search(
        optimizer, seed=seed, workers=OPTIMIZERS[optimizer].workers
    )
    settings = Settings(name=optimizer, budget=BUDGET, seed=seed, break_symmetry=False, **PAPER)
    evaluate = Evaluate(TorchScorer(model(tiny_base, torch.float64), pool, "lorahub"))
    found = search(evaluate, ADAPTERS, settings, mirrored=True)
    assert len(evaluate.searched) == len(theirs.trials) == BUDGET
    for (ours, loss), (weights, their_loss) in zip(evaluate.searched, theirs.trials, strict=True):
        assert ours == pytest.approx(weights, abs=1e-3)
        assert loss == pytest.approx(their_loss, abs=1e-4)
    their_best = min(loss + L1 * sum(map(abs, weights)) / ADAPTERS for weights, loss in theirs.trials)
    assert found.best.objective <= their_best + 1e-4, "ours has looked at the baselines too"
    assert their_best < theirs.trials[0][1], "the search is worth its name"


def test_the_port_mixes_element_by_element(tiny_base: Path, pool: list[Path]) -> None:
    port = Port.load(model(tiny_base, torch.float32), pool, ROWS)
    weights = (0.5, -0.7, 1.2, 0.1, -1.5)
    for name, mixed in port.mixed(weights).items():
        summed = sum(weight * adapter[name] for weight, adapter in zip(weights, port.adapters, strict=True))
        torch.testing.assert_close(mixed, summed)
    loss = port.loss(weights)
    assert loss == pytest.approx(port.loss(tuple(-weight for weight in weights)), abs=1e-6), "as published"
    assert abs(loss - port.loss((0.0,) * ADAPTERS)) > 0.001
