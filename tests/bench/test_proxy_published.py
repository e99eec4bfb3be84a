"""The published way says, in batches of uneven prompts, what one request at a time says."""

from collections.abc import Callable
from pathlib import Path

import pytest

from loraloom.adapters.base import fingerprint
from tests.bench.peft_batches import Batch
from tests.bench.proxy_published import Three, generated, loaded, selection
from tests.bench.random_adapters import LINEAR, Kind, random_adapter
from tests.e2e.proxy_reference import ThreeModels
from tests.gpu.models import TINY, Shape, write_random

SMALL = Shape(64, 96, 1, 2, 1, 500)
PROMPTS = ([300, 310, 320, 330, 340], [400, 410])
LENGTH = 6
Asked = Callable[[list[str]], list[list[int]]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Path]]:
    """A large model, a small one of fewer tokens, and two adapters of the small one."""
    folder = tmp_path_factory.mktemp("published")
    large, small = write_random(folder / "large", TINY), write_random(folder / "small", SMALL, seed=1)
    base, kind = fingerprint(small), Kind(LINEAR, size=0.1)
    return large, small, {name: random_adapter(folder / name, base, 4, seed, kind) for seed, name in enumerate("ab")}


@pytest.fixture(scope="module")
def three(models: tuple[Path, Path, dict[str, Path]]) -> Three:
    large, small, adapters = models
    named = [f"{name}={folder}" for name, folder in adapters.items()]
    return loaded(str(large), str(small), "float32", "cpu", "file", named)


def test_it_is_what_three_models_say_one_request_at_a_time(
    models: tuple[Path, Path, dict[str, Path]], three: Three
) -> None:
    reference = ThreeModels(*models, {})
    seen = set()
    for first, second in (("a~1.5", "b~0.5"), ("b~2", "b~0"), ("a~2", "a~2")):
        answers = three.answers(Batch(PROMPTS, (first, second), LENGTH), lambda: None)
        for prompt, model, answer in zip(PROMPTS, (first, second), answers, strict=True):
            ((name,), (alpha,)) = selection([model]).adapters, selection([model]).alphas
            (wanted,) = reference.greedy(prompt, LENGTH, name, [alpha])
            assert tuple(answer) == wanted.tokens, model
            seen.add(wanted.tokens)
    assert len(seen) > 3


def test_every_token_is_timed(three: Three) -> None:
    time = generated(three, Batch(PROMPTS, ("a~1", "b~1"), 3))
    assert time.step > 0
    assert time.first + time.step < time.total


def test_a_selection_is_an_adapter_and_a_strength() -> None:
    assert selection(["date~0.5", "words~-1"]).adapters == ("date", "words")
    assert selection(["date~0.5", "words~-1"]).alphas == (0.5, -1.0)
