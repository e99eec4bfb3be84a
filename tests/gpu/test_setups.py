import math
from pathlib import Path

import pytest

from tests.bench import zoo_store
from tests.bench.adapters_scaling import FEW, MANY
from tests.bench.arrivals import PROMPT, TOKENS
from tests.gpu.__main__ import DUE, NAMES
from tests.gpu.models import SEVEN_B, TINY
from tests.gpu.setups import DRY, GPU, RANK, Place, Scale


def test_a_setup_has_the_model_and_asks_nobody_for_its_weights(tmp_path: Path) -> None:
    setup = Place(DRY, tmp_path).setup(math.inf)
    assert (setup.model / "config.json").is_file()
    assert setup.arguments[:4] == ["--dtype", "float32", "--load-format", "dummy"]
    assert setup.dummy
    assert setup.prompts == TINY.words


def test_the_stores_have_adapters_of_their_own(tmp_path: Path) -> None:
    store = Place(DRY, tmp_path).store(3)
    versions = [store.versions(name)[0] for name in store.names()]
    assert len(versions) == len({version.digest for version in versions}) == 3
    assert {version.rank for version in versions} == {RANK}
    assert sorted(store.names()) == sorted(zoo_store.names(3))


@pytest.mark.parametrize("scale", [GPU, DRY])
def test_a_plan_asks_for_adapters_that_there_are(scale: Scale) -> None:
    assert scale.overhead.ranks == (RANK,) == (scale.overhead.stream.rank,)
    assert {case.rank for case in scale.overhead.ours} == {RANK}
    assert max(case.adapters for case in scale.overhead.ours) <= 16
    assert scale.scaling.groups == ((FEW, MANY),)


def test_a_7b_fits_into_its_cache() -> None:
    token = 2 * SEVEN_B.num_hidden_layers * SEVEN_B.hidden_size * 2
    most = max(case.batch for case in GPU.overhead.ours) * (PROMPT + TOKENS)
    assert most * token <= int(GPU.engine[-1])


def test_everything_is_due_in_order() -> None:
    assert list(DUE) == list(NAMES)
    assert list(DUE.values()) == sorted(DUE.values())
