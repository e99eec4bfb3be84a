import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from loraloom.adapters import manifest as manifest_module
from loraloom.adapters.errors import InvalidAdapter, UnsupportedAdapter
from loraloom.adapters.manifest import CONFIG_FILE, MAX_CONFIG, MAX_NAME, WEIGHTS_FILE, Module, read_manifest
from loraloom.adapters.peft_config import MAX_RANK, NORMAL_FORM_KEY

MakeAdapter = Callable[..., Path]

Q = "base_model.model.model.layers.0.self_attn.q_proj"


def _write(folder: Path, tensors: dict[str, torch.Tensor], **fields: Any) -> Path:
    """An adapter folder with exactly these tensors."""
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, **fields}
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    save_file(tensors, folder / WEIGHTS_FILE)
    return folder


def _pair(prefix: str = Q, rank: int = 2) -> dict[str, torch.Tensor]:
    return {f"{prefix}.lora_A.weight": torch.ones(rank, 32), f"{prefix}.lora_B.weight": torch.ones(16, rank)}


def test_reads_what_peft_saved(make_adapter: MakeAdapter, tiny_base: Path) -> None:
    manifest = read_manifest(make_adapter(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]))
    assert manifest.modules == {
        f"model.layers.{layer}.self_attn.{name}": Module(rank=4, in_features=32, out_features=features)
        for layer in range(2)
        for name, features in (("q_proj", 32), ("v_proj", 16))
    }
    assert set(manifest.scaling.values()) == {2.0}
    assert manifest.scaling.keys() == manifest.modules.keys()
    assert (manifest.base_model, manifest.task_type, manifest.dtype) == (str(tiny_base), "CAUSAL_LM", "float32")
    assert (manifest.rank, manifest.parameters) == (4, 2 * (4 * 64 + 4 * 48))


def test_agrees_with_peft_on_ranks_and_scalings(make_adapter: MakeAdapter, tiny_base: Path) -> None:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from transformers import AutoModelForCausalLM

    folder = make_adapter(
        r=4,
        lora_alpha=6,
        use_rslora=True,
        target_modules=["q_proj", "k_proj", "v_proj", "down_proj"],
        rank_pattern={"q_proj": 2, r"layers\.1\.mlp\..*": 8},
        alpha_pattern={"v_proj": 3, "model.layers.0.mlp.down_proj": 5},
        dtype="bfloat16",
    )
    manifest = read_manifest(folder)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), folder)
    layers = {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    assert manifest.scaling == {name: module.scaling["default"] for name, module in layers.items()}
    assert {path: module.rank for path, module in manifest.modules.items()} == {
        name: module.r["default"] for name, module in layers.items()
    }
    assert (manifest.rank, manifest.dtype) == (8, "bfloat16")


def test_mixed_types_are_told(tmp_path: Path) -> None:
    tensors = _pair() | {f"{Q}.lora_B.weight": torch.ones(16, 2, dtype=torch.bfloat16)}
    assert read_manifest(_write(tmp_path, tensors)).dtype == "mixed"


def test_the_frozen_weight_that_peft_saves_with_lora_on_the_output_layer_is_left_out(make_adapter: MakeAdapter) -> None:
    folder = make_adapter(target_modules=["lm_head"], dtype="bfloat16")
    assert "base_model.model.lm_head.base_layer.weight" in load_file(folder / WEIGHTS_FILE)
    manifest = read_manifest(folder)
    assert manifest.modules == {"lm_head": Module(rank=4, in_features=32, out_features=96)}
    assert manifest.tensors.keys() == {f"base_model.model.lm_head.lora_{factor}.weight" for factor in "AB"}


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(make_adapter: MakeAdapter, name: str) -> None:
    folder = make_adapter()
    (folder / name).unlink()
    with pytest.raises(InvalidAdapter, match=f"there is no {name}"):
        read_manifest(folder)


def test_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(InvalidAdapter, match="is not a folder"):
            read_manifest(path)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "adapter_model-00001-of-00002.bin"])
def test_a_pickle_is_not_read(make_adapter: MakeAdapter, name: str) -> None:
    folder = make_adapter()
    (folder / WEIGHTS_FILE).rename(folder / name)
    with pytest.raises(InvalidAdapter, match="only safetensors are read.*save_pretrained"):
        read_manifest(folder)


@pytest.mark.parametrize("name", ["adapter_model-00001-of-00002.safetensors", "adapter_model.safetensors.index.json"])
def test_split_weights_are_refused(make_adapter: MakeAdapter, name: str) -> None:
    folder = make_adapter()
    (folder / WEIGHTS_FILE).rename(folder / name)
    with pytest.raises(InvalidAdapter, match="split over several files"):
        read_manifest(folder)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_symbolic_links_are_refused(make_adapter: MakeAdapter, tmp_path: Path, name: str) -> None:
    folder = make_adapter()
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidAdapter, match=f"{name} is a symbolic link"):
        read_manifest(folder)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_only_regular_files_are_read(make_adapter: MakeAdapter, name: str) -> None:
    folder = make_adapter()
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(InvalidAdapter, match=f"{name} is not a regular file"):
        read_manifest(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(InvalidAdapter, match=f"{name} is not a regular file"):
        read_manifest(folder)


def test_a_huge_configuration_is_not_parsed(make_adapter: MakeAdapter) -> None:
    folder = make_adapter()
    (folder / CONFIG_FILE).write_text("[" * (MAX_CONFIG + 1))
    with pytest.raises(InvalidAdapter, match=f"more than {MAX_CONFIG} bytes"):
        read_manifest(folder)


def test_a_truncated_file_is_refused(make_adapter: MakeAdapter) -> None:
    folder = make_adapter()
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[:-1])
    with pytest.raises(InvalidAdapter, match="truncated.*download it again"):
        read_manifest(folder)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidAdapter, match="holds no tensors"):
        read_manifest(_write(tmp_path, {}))


@pytest.mark.parametrize(("left", "lost"), [("A", "B"), ("B", "A")])
def test_half_a_pair_is_refused(tmp_path: Path, left: str, lost: str) -> None:
    tensors = _pair()
    del tensors[f"{Q}.lora_{lost}.weight"]
    with pytest.raises(InvalidAdapter, match=f"q_proj has lora_{left} but no lora_{lost}"):
        read_manifest(_write(tmp_path, tensors))


def test_ranks_that_differ_between_a_and_b_are_refused(tmp_path: Path) -> None:
    tensors = _pair() | {f"{Q}.lora_B.weight": torch.ones(16, 3)}
    with pytest.raises(InvalidAdapter, match="rank 2 in lora_A and 3 in lora_B"):
        read_manifest(_write(tmp_path, tensors))


def test_a_rank_that_differs_from_the_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidAdapter, match="has rank 3, and adapter_config.json says 2"):
        read_manifest(_write(tmp_path, _pair(rank=3)))
    with pytest.raises(InvalidAdapter, match="has rank 2, and adapter_config.json says 1"):
        read_manifest(_write(tmp_path, _pair(), rank_pattern={"q_proj": 1}))


@pytest.mark.parametrize("tensor", [torch.ones(2), torch.ones(2, 32, 1, 1), torch.ones(0, 32), torch.ones(2, 0)])
def test_what_is_no_matrix_is_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    with pytest.raises(InvalidAdapter, match="has shape"):
        read_manifest(_write(tmp_path, _pair() | {f"{Q}.lora_A.weight": tensor}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.float8_e4m3fn])
def test_other_types_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    with pytest.raises(InvalidAdapter, match="save it as float32"):
        read_manifest(_write(tmp_path, {name: tensor.to(dtype) for name, tensor in _pair().items()}))


@pytest.mark.parametrize(
    "name",
    [
        Q,
        Q.removeprefix("base_model.model."),
        f"{Q}.lora_A",
        f"{Q}.lora_A.default",
        f"{Q}.lora_A.default.weight",
        f"{Q}.lora_C.weight",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model..lora_A.weight",
        "base_model.model.../../etc.lora_A.weight",
        "base_model.model.a b.lora_A.weight",
        "base_model.model.a\x00.lora_A.weight",
        "base_model.model.é.lora_A.weight",
        "weight",
        "",
    ],
)
def test_unexpected_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidAdapter, match="is not named"):
        read_manifest(_write(tmp_path, _pair() | {name: torch.ones(2, 32)}))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (f"{Q}.lora_magnitude_vector", "DoRA"),
        (f"{Q}.lora_B.bias", "LoRA bias"),
        (f"{Q}.bias", "trained biases"),
        ("base_model.model.lm_head.base_layer.weight", "a whole layer"),
        ("base_model.model.lm_head.weight", "modules_to_save"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "token embedding"),
        ("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta", "trainable_token_indices"),
    ],
)
def test_tensors_of_other_kinds_are_unsupported(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(UnsupportedAdapter, match=what):
        read_manifest(_write(tmp_path, _pair() | {name: torch.ones(2, 32)}))


def test_single_experts_are_unsupported(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedAdapter, match="expert"):
        read_manifest(_write(tmp_path, _pair("base_model.model.model.layers.0.mlp.experts.3.up_proj")))


@pytest.mark.parametrize(
    "fields",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"lora_bias": True},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [1, 2]},
        {"target_modules": ["embed_tokens"]},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"alora_invocation_tokens": [1, 2]},
    ],
)
def test_what_peft_saves_of_other_kinds_is_unsupported(
    make_adapter: MakeAdapter, biased_base: Path, fields: dict[str, Any]
) -> None:
    with pytest.raises(UnsupportedAdapter):
        read_manifest(make_adapter(model=biased_base, **fields))


@pytest.fixture(scope="session")
def whole_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("whole"), _pair())


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_weights_are_never_more_than_an_invalid_adapter(
    tmp_path: Path, whole_adapter: Path, data: st.DataObject
) -> None:
    content = bytearray((whole_adapter / WEIGHTS_FILE).read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / CONFIG_FILE).write_bytes((whole_adapter / CONFIG_FILE).read_bytes())
    (tmp_path / WEIGHTS_FILE).write_bytes(
        content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    )
    try:
        manifest = read_manifest(tmp_path)
    except InvalidAdapter:
        return
    assert {name: info.shape for name, info in manifest.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / WEIGHTS_FILE).items()
    }


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    fields=st.dictionaries(
        st.sampled_from(
            ["peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "task_type", "use_dora"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("LORA"),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
            max_leaves=4,
        ),
    )
)
def test_a_strange_configuration_is_never_more_than_an_invalid_adapter(
    tmp_path: Path, whole_adapter: Path, fields: dict[str, Any]
) -> None:
    config = json.loads((whole_adapter / CONFIG_FILE).read_text()) | fields
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    (tmp_path / WEIGHTS_FILE).write_bytes((whole_adapter / WEIGHTS_FILE).read_bytes())
    try:
        manifest = read_manifest(tmp_path)
    except InvalidAdapter:
        return
    assert manifest.modules["model.layers.0.self_attn.q_proj"] == Module(2, 32, 16)


def test_a_name_that_is_too_long_is_refused_and_not_repeated(tmp_path: Path) -> None:
    prefix = "base_model.model." + "a." * 250 + "q_proj"
    with pytest.raises(InvalidAdapter, match="a name of 537 characters, more than the 500") as refused:
        read_manifest(_write(tmp_path, _pair(prefix)))
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("ending", [".lora_A.weight", ".base_layer.weight", ".bias", ""])
def test_no_pattern_sees_a_name_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    class Watched:
        def fullmatch(self, name: str) -> None:
            assert len(name) <= MAX_NAME

    def refused(name: str) -> None:
        pytest.fail("it was matched with the patterns of other tensors")

    for pattern in ("_TENSOR", "_BASE_COPY"):
        monkeypatch.setattr(manifest_module, pattern, Watched())
    monkeypatch.setattr(manifest_module, "refused_tensor", refused)
    name = "base_model.model" + ".a" * MAX_NAME + ending
    with pytest.raises(InvalidAdapter, match="more than the 500"):
        read_manifest(_write(tmp_path, {"x" * MAX_NAME: torch.ones(1), name: torch.ones(2, 32)}))


def test_a_name_of_the_greatest_length_is_read(tmp_path: Path) -> None:
    rest = MAX_NAME - len("base_model.model..lora_A.weight")
    assert list(read_manifest(_write(tmp_path, _pair("base_model.model." + "a" * rest))).modules) == ["a" * rest]


def test_a_rank_may_be_above_the_features_and_not_above_the_limit(tmp_path: Path) -> None:
    assert read_manifest(_write(tmp_path, _pair(rank=MAX_RANK), r=MAX_RANK)).rank == MAX_RANK
    for fields in ({}, {NORMAL_FORM_KEY: 1}):
        with pytest.raises(InvalidAdapter, match="q_proj has rank 4097, and at most 4096 is read"):
            read_manifest(_write(tmp_path, _pair(rank=MAX_RANK + 1), **fields))
    with pytest.raises(InvalidAdapter, match="the rank 'r' is '4097'"):
        read_manifest(_write(tmp_path, _pair(), r=MAX_RANK + 1))
