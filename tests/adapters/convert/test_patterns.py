"""Patterns match as peft matches them, and do not take for ever."""

import re
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from loraloom.adapters.convert import patterns
from loraloom.adapters.convert.convert import Options, convert
from loraloom.adapters.convert.models import load_model
from loraloom.adapters.convert.original import put_on
from loraloom.adapters.convert.patterns import spelled_out
from loraloom.adapters.errors import InvalidAdapter
from loraloom.adapters.manifest import read_manifest

from .conftest import MakeKind, logits, merged_updates

PATHS = ["model", "model.layers.1.mlp.up_proj", "model.layers.11.mlp.up_proj", "model.layers.1.self_attn.q_proj"]
ENDLESS = "(a|aa)+b"


def _looked_up(patterns: dict[str, Any]) -> dict[str, Any]:
    """The value of each path that has one, as peft finds it."""
    from peft.utils.other import get_pattern_key

    found = {path: patterns.get(get_pattern_key(list(patterns), path)) for path in PATHS}
    return {path: value for path, value in found.items() if value is not None}


def test_targets_become_the_paths_that_match_as_a_whole() -> None:
    plain = spelled_out({"target_modules": r".*\.1\..*_proj", "exclude_modules": ".*q_proj", "r": 3}, PATHS)
    assert plain == {"target_modules": [PATHS[1], PATHS[3]], "exclude_modules": [PATHS[3]], "r": 3}


def test_the_first_pattern_that_matches_counts() -> None:
    plain = spelled_out({"rank_pattern": {"1.mlp.up_proj": 4, "up_proj": 2, "nothing": 9}}, PATHS)
    assert _looked_up(plain["rank_pattern"]) == {PATHS[1]: 4, PATHS[2]: 2}


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": ["q_proj"], "feedforward_modules": None},
        {"target_modules": "all-linear", "rank_pattern": {}},
        {"peft_type": "ADALORA", "rank_pattern": {"model.layers.1.lora_E": [True, False]}, "layers_pattern": "layers"},
        {"layers_pattern": None, "n_frequency_pattern": None},
    ],
)
def test_what_is_no_pattern_is_left_alone(fields: dict[str, Any]) -> None:
    assert spelled_out(fields, PATHS) == fields


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": "(open"},
        {"rank_pattern": {"(open": 2}},
        {"layers_pattern": ["a(b+)+"]},
        {"layers_pattern": [["](a+)+"]]},
        {"layers_pattern": {"a(b+)+": 1}},
        {"peft_type": "ADALORA", "rank_pattern": {"a(b+)+": [True]}},
        {"peft_type": "ADALORA", "rank_pattern": {"a" * 501: [True]}},
    ],
)
def test_broken_patterns_are_told(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidAdapter, match="adapter_config.json"):
        spelled_out(fields, PATHS)


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": ENDLESS},
        {"alpha_pattern": {ENDLESS: 2}},
        {"rank_pattern": {ENDLESS: 2, "up_proj": [1]}},
        {"n_frequency_pattern": {ENDLESS: 2}},
        {"block_size_pattern": {ENDLESS: 2}},
        {"lambda_pattern": {ENDLESS: 2}},
        {"any_pattern": {ENDLESS: [True]}},
    ],
)
def test_endless_patterns_end(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "PATTERN_SECONDS", 0.2)
    with pytest.raises(InvalidAdapter, match="too long"):
        spelled_out(fields, ["a" * 100])


def test_a_pattern_that_is_spelled_out_is_of_one_path_alone() -> None:
    paths = ["up_proj", "a.up_proj", "b.a.up_proj"]
    plain = spelled_out({"block_size_pattern": {"b.a.up_proj": 4, "a.up_proj": 2}}, paths)["block_size_pattern"]
    matching = {path: [value for key, value in plain.items() if re.match(rf".*\.{key}$", path)] for path in paths}
    assert matching == {"up_proj": [], "a.up_proj": [2], "b.a.up_proj": [4]}


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        (peft.FourierFTConfig, {"n_frequency": 8, "n_frequency_pattern": {"q_proj": 5, "1.mlp.down_proj": 3}}),
        (peft.C3AConfig, {"block_size": 8, "block_size_pattern": {"q_proj": 16, "1.mlp.down_proj": 4}}),
    ],
)
def test_patterns_of_other_fields_say_what_peft_makes_of_them(
    make_kind: MakeKind, tiny_base: Path, config: Any, fields: dict[str, Any]
) -> None:
    folder = make_kind(config, **fields)
    wanted = merged_updates(tiny_base, folder)
    found = dict(put_on(load_model(tiny_base), folder, changes_base=False).updates())
    assert found.keys() == wanted.keys()
    for path, update in wanted.items():
        torch.testing.assert_close(found[path], update, atol=1e-6, rtol=1e-5)


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
