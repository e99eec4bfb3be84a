import math
from pathlib import Path

import pytest

from loraloom.server.proxy.fitting.architecture import read_architecture
from loraloom.server.proxy.fitting.fit import check_fit
from tests.bench.proxy_contenders import ABOUT, PROXY
from tests.gpu.models import EIGHT_B, ONE_B, TINY
from tests.gpu.proxy_setups import ADAPTERS, DRY, GPU, ProxyScale
from tests.gpu.setups import RANK


def test_a_setup_has_both_models_which_fit_and_adapters_of_the_small_one(tmp_path: Path) -> None:
    setup, couple = DRY.setup(tmp_path, math.inf), DRY.couple(tmp_path)
    assert setup.dummy
    assert setup.prompts == TINY.words
    check_fit(str(setup.model), str(couple.small), None).raise_if_refused()
    assert len(couple.adapters) == ADAPTERS
    assert all((folder / "adapter_model.safetensors").is_file() for folder in couple.adapters.values())
    assert read_architecture(couple.small).tied


@pytest.mark.parametrize("scale", [GPU, DRY])
def test_everybody_is_asked_for_the_same_batches(scale: ProxyScale) -> None:
    assert set(scale.plan.batches) == set(ABOUT)
    assert {1, 8} <= set(scale.plan.batches[PROXY])
    assert RANK <= 16


def test_eight_of_the_longest_fit_into_the_cache() -> None:
    sizes = [
        each.num_hidden_layers * each.hidden_size // each.num_attention_heads * each.num_key_value_heads * 2 * 2
        for each in (EIGHT_B, ONE_B, ONE_B)
    ]
    assert 16 * (256 + 64) * sum(sizes) <= int(GPU.engine[-1])
