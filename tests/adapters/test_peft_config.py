import json
from typing import Any

import pytest

from loraloom.adapters import peft_config
from loraloom.adapters.errors import InvalidAdapter, UnsupportedAdapter
from loraloom.adapters.peft_config import PeftConfig, parse_config

MINIMAL = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}
Q, K = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"


def _parse(**fields: Any) -> PeftConfig:
    return parse_config(json.dumps(MINIMAL | fields).encode())


def test_the_fields_that_count() -> None:
    config = _parse(
        base_model_name_or_path="org/base",
        task_type="CAUSAL_LM",
        use_rslora=True,
        rank_pattern={"q_proj": 4},
        alpha_pattern={"q_proj": 2},
        lora_dropout=0.1,
        qalora_group_size=16,
        something_of_next_year=[1],
    )
    assert config == PeftConfig(8, 16.0, True, {"q_proj": 4}, {"q_proj": 2.0}, "org/base", "CAUSAL_LM", False)


def test_null_means_absent() -> None:
    config = _parse(
        use_rslora=None, rank_pattern=None, alpha_pattern=None, base_model_name_or_path=None, task_type=None
    )
    assert config == parse_config(json.dumps(MINIMAL).encode())
    assert config.base_model is None


def test_scaling_is_alpha_over_rank() -> None:
    assert _parse().scalings({Q: 8}) == {Q: 2.0}
    assert _parse(r=4, use_rslora=True).scalings({Q: 4}) == {Q: 8.0}


def test_patterns_change_rank_and_alpha_each() -> None:
    assert _parse(rank_pattern={"q_proj": 4}).scalings({Q: 4, K: 8}) == {Q: 4.0, K: 2.0}
    assert _parse(alpha_pattern={"q_proj": 4}).scalings({Q: 8, K: 8}) == {Q: 0.5, K: 2.0}


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj",
        "self_attn.q_proj",
        Q,
        "^model.layers.0.self_attn.q_proj",
        r"layers\.[0-3]\..*q_proj",
        "q_proj|v_proj",
        "_proj",
        "proj",
        ".*",
        "attn.q_proj",
    ],
)
def test_patterns_match_as_in_peft(pattern: str) -> None:
    from peft.utils.other import get_pattern_key

    alphas = {pattern: 4, ".*q_proj": 32}
    expected = alphas.get(get_pattern_key(list(alphas), Q))
    assert _parse(alpha_pattern=alphas).scalings({Q: 8}) == {Q: expected / 8}


def test_the_first_pattern_that_matches_counts() -> None:
    assert _parse(alpha_pattern={"q_proj": 8, Q: 4}).scalings({Q: 8}) == {Q: 1.0}
    assert _parse(alpha_pattern={Q: 4, "q_proj": 8}).scalings({Q: 8}) == {Q: 0.5}


def test_a_rank_that_the_configuration_does_not_say_is_refused() -> None:
    with pytest.raises(InvalidAdapter, match=f"{Q} has rank 4, and adapter_config.json says 8"):
        _parse().scalings({Q: 4})
    with pytest.raises(InvalidAdapter, match="has rank 8, and adapter_config.json says 4"):
        _parse(rank_pattern={"q_proj": 4}).scalings({Q: 8})


def test_in_normal_form_each_module_has_its_own_rank() -> None:
    assert _parse(r=8, lora_alpha=8, loraloom_normal_form=1).scalings({Q: 4, K: 8}) == {Q: 1.0, K: 1.0}


def test_a_pattern_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft_config, "PATTERN_SECONDS", 0.2)
    with pytest.raises(InvalidAdapter, match="takes too long"):
        _parse(alpha_pattern={"(a|aa)+b": 4}).scalings({"a" * 100: 8})


def test_a_pattern_that_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(InvalidAdapter, match="no regular expression"):
        _parse(rank_pattern={"q_proj(": 4}).scalings({Q: 4})


@pytest.mark.parametrize(
    "fields",
    [
        {"use_dora": True},
        {"lora_bias": True},
        {"use_qalora": True},
        {"use_bdlora": {"nblocks": 2}},
        {"alora_invocation_tokens": [1, 2]},
        {"arrow_config": {"top_k": 3}},
        {"kasa_config": {"beta": 0.1}},
        {"monteclora_config": {"samples": 2}},
        {"layer_replication": [[0, 2], [1, 3]]},
        {"target_parameters": ["experts.down_proj"]},
        {"fan_in_fan_out": True},
        *(
            {"init_lora_weights": name}
            for name in ("pissa", "pissa_niter_16", "PiSSA", "olora", "corda", "lora_ga", "loftq")
        ),
    ],
)
def test_what_is_not_plain_lora_is_unsupported(fields: dict[str, Any]) -> None:
    key, value = next(iter(fields.items()))
    with pytest.raises(UnsupportedAdapter, match=value if key == "init_lora_weights" else key):
        _parse(**fields)


@pytest.mark.parametrize("init", [True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_initialisations_that_leave_the_base_alone_pass(init: object) -> None:
    assert _parse(init_lora_weights=init) == _parse()


@pytest.mark.parametrize("kind", ["IA3", "ADALORA", "VERA", "PREFIX_TUNING", "lora"])
def test_other_kinds_are_named(kind: str) -> None:
    with pytest.raises(UnsupportedAdapter, match=kind):
        _parse(peft_type=kind)


@pytest.mark.parametrize(
    "fields",
    [
        {"peft_type": None},
        {"peft_type": 1},
        {"r": None},
        {"r": 0},
        {"r": -1},
        {"r": 8.0},
        {"r": "8"},
        {"r": True},
        {"r": 2**40},
        {"lora_alpha": None},
        {"lora_alpha": "16"},
        {"lora_alpha": True},
        {"lora_alpha": float("nan")},
        {"lora_alpha": float("inf")},
        {"lora_alpha": 10**400},
        {"use_rslora": "yes"},
        {"use_rslora": 1},
        {"rank_pattern": ["q_proj"]},
        {"rank_pattern": {"q_proj": 0}},
        {"rank_pattern": {"q_proj": 1.5}},
        {"alpha_pattern": {"q_proj": None}},
        {"alpha_pattern": {"q_proj": float("nan")}},
        {"base_model_name_or_path": 1},
        {"task_type": []},
        {"base_model_name_or_path": "\ud800"},
        {"base_model_name_or_path": "a\0b"},
        {"base_model_name_or_path": "x" * 1001},
        {"task_type": "\udfff"},
    ],
)
def test_a_wrong_type_or_value_is_named(fields: dict[str, Any]) -> None:
    (key, value), *_ = fields.items()
    with pytest.raises(InvalidAdapter, match="q_proj" if isinstance(value, dict) else key):
        _parse(**fields)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000])
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidAdapter, match="not JSON"):
        parse_config(text)


@pytest.mark.parametrize("text", [b"[]", b"null", b'"LORA"'])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidAdapter, match="not a JSON object"):
        parse_config(text)
