"""Which models are composed, on its way through a configuration."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from loraloom.server.proxy.pair import ARCHITECTURE, FIELD, Pair

PAIRS = [Pair(("LlamaForCausalLM",), "/models/small"), Pair(("A", "B"), "org/small", "org/expert", -0.5)]


@pytest.mark.parametrize("pair", PAIRS)
def test_it_comes_back_from_a_models_configuration(pair: Pair, tiny_base: Path, tmp_path: Path) -> None:
    """Which is written to a file and read again wherever an engine has more than one process."""
    config = AutoConfig.from_pretrained(tiny_base)
    config.update(json.loads(pair.overrides()))
    config.save_pretrained(tmp_path)
    arrived = AutoConfig.from_pretrained(tmp_path)
    assert arrived.architectures == [ARCHITECTURE]
    assert Pair.of(getattr(arrived, FIELD)) == pair


def test_without_an_adapter_only_an_expert_of_its_own_steers() -> None:
    assert [pair.unadapted_alpha for pair in PAIRS] == [0.0, -0.5]
