"""Patterns match as peft matches them, and do not take for ever."""

import re
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from loraloom.adapters.convert import patterns
from loraloom.adapters.convert.convert import Options, convert
from loraloom.adapters.convert.patterns import spelled_out
from loraloom.adapters.errors import InvalidAdapter
from loraloom.adapters.manifest import read_manifest

from .conftest import MakeKind, logits

PATHS = ["model", "model.layers.1.mlp.up_proj", "model.layers.11.mlp.up_proj", "model.layers.1.self_attn.q_proj"]
ENDLESS = "(a|aa)+b"


def test_targets_become_the_paths_that_match_as_a_whole() -> None:
    plain = spelled_out({"target_modules": r".*\.1\..*_proj", "exclude_modules": ".*q_proj", "r": 3}, PATHS)
    assert plain == {"target_modules": [PATHS[1], PATHS[3]], "exclude_modules": [PATHS[3]], "r": 3}


def test_the_first_pattern_that_matches_counts() -> None:
    plain = spelled_out({"rank_pattern": {"1.mlp.up_proj": 4, "up_proj": 2, "nothing": 9}}, PATHS)
    assert plain["rank_pattern"] == {re.escape(PATHS[1]): 4, re.escape(PATHS[2]): 2}


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": ["q_proj"], "feedforward_modules": None},
        {"target_modules": "all-linear", "rank_pattern": {}},
        {"rank_pattern": {"model.layers.1.lora_E": [True, False]}, "layers_pattern": "layers"},
    ],
)
def test_what_is_no_pattern_is_left_alone(fields: dict[str, Any]) -> None:
    assert spelled_out(fields, PATHS) == fields


@pytest.mark.parametrize(
    "fields",
    [{"target_modules": "(open"}, {"rank_pattern": {"(open": 2}}, {"layers_pattern": ["a(b+)+"]}],
)
def test_broken_patterns_are_told(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidAdapter, match="adapter_config.json"):
        spelled_out(fields, PATHS)


@pytest.mark.parametrize("fields", [{"target_modules": ENDLESS}, {"alpha_pattern": {ENDLESS: 2}}])
def test_endless_patterns_end(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "PATTERN_SECONDS", 0.2)
    with pytest.raises(InvalidAdapter, match="too long"):
        spelled_out(fields, ["a" * 100])


def test_an_adapter_with_patterns_is_converted_as_peft_reads_it(
    make_kind: MakeKind, tiny_base: Path, out: Path
) -> None:
    folder = make_kind(
        peft.LoHaConfig,
        r=2,
        target_modules=r".*\.(q_proj|down_proj)",
        rank_pattern={"q_proj": 3, r"1\.mlp\.down_proj": 1},
        alpha_pattern={"q_proj": 5},
    )
    convert(folder, out, tiny_base, Options())
    torch.testing.assert_close(logits(tiny_base, out), logits(tiny_base, folder), atol=3e-5, rtol=1e-4)
    ranks = {path: module.rank for path, module in read_manifest(out).modules.items()}
    assert ranks == {
        "model.layers.0.mlp.down_proj": 4,
        "model.layers.1.mlp.down_proj": 1,
        "model.layers.0.self_attn.q_proj": 9,
        "model.layers.1.self_attn.q_proj": 9,
    }
