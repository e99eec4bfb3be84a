"""Which pairs of models fit, and what is told of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loraloom.server.errors import InvalidSettings, ProxyMismatch
from loraloom.server.proxy.fitting.fit import billions, check_fit
from tests.server.proxy import configurations as known

Model = Callable[..., Path]

NO_WEIGHTS = "has no weights as safetensors here"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A callable `model(config, …) -> folder`, as `write_model`, in a folder named after its place in the order."""
    names = iter(("first", "second", "third"))
    return lambda *given, **more: known.write_model(tmp_path / next(names), *given, **more)


def notes(large: Path, small: Path) -> list[str]:
    """Those that are not about missing weights."""
    fit = check_fit(large, small)
    assert fit.refusals == ()
    return [note for note in fit.notes if NO_WEIGHTS not in note]


@pytest.mark.parametrize(
    ("large", "small"),
    [
        (known.LLAMA2_70B, known.LLAMA2_7B),
        (known.LLAMA31_70B, known.LLAMA31_8B),
        (known.LLAMA31_70B, known.LLAMA31_70B),
        (known.QWEN3_30B_A3B, known.QWEN3_8B),
        (known.MIXTRAL, {**known.MISTRAL_V03, "vocab_size": 32000}),
    ],
)
def test_pairs_that_fit(model: Model, large: known.Config, small: known.Config) -> None:
    assert notes(model(large), model(small)) == []


def test_real_models(tiny_base: Path, biased_base: Path) -> None:
    fit = check_fit(biased_base, tiny_base, tiny_base)
    fit.raise_if_refused()
    assert (fit.large.name, fit.expert, fit.refusals) == (str(biased_base), fit.small, ())
    assert fit.notes == (
        "the large model has no chat template: chat needs one after `--`, as in `-- --chat-template FILE`",
    )


def test_a_small_model_with_code_of_its_own(model: Model) -> None:
    own = {"model_type": "own-kind", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    large, small = model(known.LLAMA31_70B), model({**known.LLAMA31_8B, **own})
    (reason,) = check_fit(large, small, small).refusals
    assert f"{small} needs code that comes with it" in reason
    assert check_fit(small, model(known.LLAMA31_8B)).refusals == ()


def test_a_large_model_with_several_chat_templates(model: Model) -> None:
    templates = {
        **known.SPECIAL,
        "chat_template": [{"name": "rag", "template": "r"}, {"name": "tools", "template": ""}],
    }
    large = model(known.LLAMA31_70B, special=templates)
    assert notes(large, model(known.LLAMA31_8B)) == [
        "the large model has several chat templates (rag, tools), none called default: chat needs one after `--`, as "
        "in `-- --chat-template FILE`"
    ]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (known.GEMMA2_9B, "slides over the last 4096 tokens"),
        (known.DEEPSEEK_V3, "(MLA)"),
        (known.MAMBA, "a state instead"),
        (known.JAMBA, "a state instead"),
        (known.LLAVA, "multimodal"),
        (known.T5, "encoder-decoder"),
        (known.BERT, "not a causal language model"),
        ({"architectures": ["OtherForCausalLM"]}, "leaves out layers, width, heads or vocabulary"),
    ],
)
def test_kinds_that_are_refused(model: Model, config: known.Config, reason: str) -> None:
    unquantized = {**config, "quantization_config": None}
    strange, usual = model(unquantized), model(known.LLAMA31_8B)
    for large, small in ((strange, usual), (usual, strange)):
        told = [text for text in check_fit(large, small).refusals if "is larger than" not in text]
        assert len(told) == 1
        assert told[0].startswith(f"{strange} cannot be proxy-tuned: ")
        assert reason in told[0]


def test_other_tokenizers(model: Model) -> None:
    longer = {**known.TOKENIZER, "added_tokens": [{"content": "<think>", "id": 3}]}
    fit = check_fit(model(known.QWEN3_8B, longer), model(known.QWEN25_15B))
    (reason,) = fit.refusals
    assert reason.startswith("the tokenizers differ in 1 token ('<think>': 3, no id in the small model): take a small")
    with pytest.raises(ProxyMismatch, match="cannot steer .*<think>") as caught:
        fit.raise_if_refused()
    assert isinstance(caught.value, InvalidSettings)


def test_only_the_large_model_may_have_experts(model: Model) -> None:
    large, small = model(known.QWEN3_30B_A3B), model(known.QWEN3_30B_A3B)
    (reason,) = check_fit(large, small).refusals
    assert "mixture of experts" in reason


def test_every_reason_is_told(model: Model) -> None:
    fit = check_fit(model(known.LLAMA31_8B), model(known.GEMMA2_9B, None))
    assert len(fit.refusals) == 3
    with pytest.raises(ProxyMismatch) as caught:
        fit.raise_if_refused()
    assert all(reason in str(caught.value) for reason in fit.refusals)


def test_tokens_without_a_row(model: Model) -> None:
    longer = {**known.TOKENIZER, "added_tokens": [{"content": "<pad>", "id": 32000}]}
    large, small = model({**known.LLAMA2_70B, "vocab_size": 32064}, longer), model(known.LLAMA2_7B, longer)
    (reason,) = check_fit(large, small).refusals
    assert reason.startswith(f"the token '<pad>' has the id 32000, and {small} only 32000 rows: ")
    assert len(check_fit(small, small).refusals) == 1  # told once


def test_a_small_model_that_is_larger_by_its_headers(model: Model) -> None:
    """Also where the configurations say the same."""
    large = model(known.LLAMA2_7B, weights={"a": (10**6, 5)})
    small = model(known.LLAMA2_7B, weights={"a": (10**6, 6)})
    (reason,) = check_fit(large, small).refusals
    assert reason == f"{small} is larger than {large} (6 M and 5 M parameters): name the large model first"
    assert check_fit(small, large).refusals == ()


def test_only_the_large_model_may_be_quantized(model: Model) -> None:
    packed = {"quantization_config": {"quant_method": "awq"}}
    large, small = model({**known.LLAMA31_70B, **packed}), model({**known.LLAMA31_8B, **packed})
    (reason,) = check_fit(large, small).refusals
    assert reason.startswith(f"{small} is quantized (awq): take the same model unquantized")
    assert check_fit(large, model(known.LLAMA31_8B)).refusals == ()


SHAPES = {"model.norm.weight": (32,), "model.layers.0.mlp.up_proj.weight": (48, 32)}


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        (SHAPES, None),
        ({**SHAPES, "model.layers.0.self_attn.rotary_emb.inv_freq": (4,), "lm_head.weight": (96, 32)}, None),
        ({**SHAPES, "model.norm.weight": (64,)}, "(1: model.norm.weight)"),
        ({**SHAPES, "model.layers.1.mlp.up_proj.weight": (48, 32)}, "(1: model.layers.1.mlp.up_proj.weight)"),
    ],
)
def test_an_expert_has_the_small_models_shapes(model: Model, shapes: dict[str, Any], told: str | None) -> None:
    large = model(known.LLAMA31_70B)
    small, expert = model(known.LLAMA32_1B, weights=SHAPES), model(known.LLAMA32_1B, weights=shapes)
    refusals = check_fit(large, small, expert).refusals
    assert len(refusals) == (told is not None)
    assert (told or "") in "".join(refusals)


def test_an_output_layer_of_its_own_counts_where_it_is_not_tied(model: Model) -> None:
    large = model(known.LLAMA31_70B)
    small = model(known.LLAMA31_8B, weights=SHAPES)
    expert = model(known.LLAMA31_8B, weights={**SHAPES, "lm_head.weight": (96, 32)})
    assert "(1: lm_head.weight)" in check_fit(large, small, expert).refusals[0]


def test_an_expert_without_weights_is_compared_by_its_configuration(model: Model) -> None:
    large, small, other = model(known.LLAMA31_70B), model(known.LLAMA31_8B), model(known.LLAMA32_1B)
    assert check_fit(large, small, small).refusals == ()
    (reason,) = check_fit(large, small, other).refusals
    assert reason.startswith(f"{other} has other sizes than {small}: ")


def test_an_expert_is_neither_quantized_nor_of_another_tokenizer(model: Model) -> None:
    longer = {**known.TOKENIZER, "added_tokens": [{"content": "<pad>", "id": 3}]}
    packed = {**known.LLAMA31_8B, "quantization_config": {"quant_method": "fp8"}}
    quantized, tokens = check_fit(model(known.LLAMA31_70B), model(known.LLAMA31_8B), model(packed, longer)).refusals
    assert "is quantized (fp8)" in quantized
    assert tokens.startswith("the expert has another tokenizer than the small model: ")


def test_a_note_on_padding(model: Model) -> None:
    (note,) = notes(model(known.QWEN25_32B), model(known.QWEN25_15B))
    assert note == "the vocabularies are padded to 152064 and 151936 columns: padding of either is left as it is"


def test_a_note_on_special_tokens(model: Model) -> None:
    small = model(known.LLAMA31_8B, special={**known.SPECIAL, "eos_token": "<|end|>"})
    (note,) = notes(model(known.LLAMA31_70B), small)
    assert (
        note == "special tokens differ (eos: '</s>', '<|end|>' in the small model): those of the large model are used"
    )


def test_a_note_on_merges(model: Model) -> None:
    other = {**known.TOKENIZER, "model": {**known.TOKENIZER["model"], "merges": []}}
    (note,) = notes(model(known.LLAMA31_70B), model(known.LLAMA31_8B, other))
    assert note.startswith("the tokenizers have the same ids but other merges or scores")


@pytest.mark.parametrize(
    ("large", "small", "told"),
    [
        ("{{ a }}", "{{ b }}", "the chat templates differ: the large model's is used for both"),
        ("{{ a }}", None, "the chat templates differ: the large model's is used for both"),
        (None, "{{ b }}", "the large model has no chat template"),
    ],
)
def test_a_note_on_chat_templates(model: Model, large: str | None, small: str | None, told: str) -> None:
    folders = [
        model(config, special={"chat_template": template})
        for config, template in ((known.LLAMA31_70B, large), (known.LLAMA31_8B, small))
    ]
    (note,) = notes(*folders)
    assert note.startswith(told)


def test_a_note_on_the_shorter_context(model: Model) -> None:
    large, small = model(known.LLAMA31_70B), model({**known.LLAMA31_8B, "max_position_embeddings": 4096})
    (note,) = notes(large, small)
    assert note == (
        "the small model knows 4096 positions, the large one 131072: serve with `-- --max-model-len 4096` or less"
    )
    untold = {name: value for name, value in known.LLAMA31_8B.items() if name != "max_position_embeddings"}
    assert notes(large, model(untold)) == []


def test_a_note_on_missing_weights(model: Model) -> None:
    large, small = model(known.LLAMA31_70B, weights={"a": (10**6, 10**5)}), model(known.LLAMA31_8B)
    assert check_fit(large, small).notes == (
        f"{small} has no weights as safetensors here: its sizes are those of its config.json, in 16 bits",
    )


@pytest.mark.parametrize(
    ("count", "text"), [(70_553_706_496, "70.6 B"), (999_999_999, "1 B"), (134_515_008, "135 M"), (10**9, "1 B")]
)
def test_parameters_as_people_say_them(count: int, text: str) -> None:
    assert billions(count) == text
