"""What peft would pass over in silence is refused, and updates are those of merging."""

import json
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file

from loraloom.adapters.convert.models import load_model
from loraloom.adapters.convert.original import put_on
from loraloom.adapters.errors import BaseMismatch, InvalidAdapter, UnsupportedAdapter

from .conftest import MakeKind, merged_updates

KINDS = [
    (peft.VeraConfig, {"r": 3}),
    (peft.LoraConfig, {"use_dora": True}),
    (peft.OFTConfig, {"oft_block_size": 8}),
    (peft.IA3Config, {"feedforward_modules": ["down_proj"]}),
]


def _with_tensor(folder: Path, name: str, tensor: torch.Tensor | None) -> Path:
    """Add a tensor, or take out all those whose name contains `name`."""
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    if tensor is None:
        tensors = {key: value for key, value in tensors.items() if name not in key}
    else:
        tensors[name] = tensor
    save_file(tensors, file)
    return folder


@pytest.mark.parametrize(("config", "fields"), KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_updates_are_those_of_merging_the_whole_model(
    make_kind: MakeKind, tiny_base: Path, tmp_path: Path, config: Any, fields: dict[str, Any], dtype: str
) -> None:
    model = load_model(tiny_base, dtype)
    model.save_pretrained(tmp_path / "model")
    folder = make_kind(config, model=tmp_path / "model", **fields)
    found = dict(put_on(model, folder, changes_base=False).updates())
    wanted = merged_updates(tmp_path / "model", folder)
    assert found.keys() == wanted.keys()
    for path, update in wanted.items():
        assert found[path].dtype == torch.float64
        torch.testing.assert_close(found[path], update, atol=1e-6, rtol=1e-5)


def test_the_base_is_left_as_it_is(make_kind: MakeKind, tiny_base: Path) -> None:
    model = load_model(tiny_base, "bfloat16")
    before = {path: layer.weight.clone() for path, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    original = put_on(model, make_kind(peft.OFTConfig, oft_block_size=8), changes_base=False)
    assert len(list(original.updates())) == 6
    for path, weight in before.items():
        layer = original.model.base_model.model.get_submodule(path)
        own = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
        assert own.weight.dtype == torch.bfloat16
        assert torch.equal(own.weight, weight)


def test_missing_tensors_are_told(make_kind: MakeKind, tiny_base: Path) -> None:
    folder = _with_tensor(make_kind(peft.LoHaConfig), "layers.1.self_attn.q_proj.hada_w1_a", None)
    with pytest.raises(BaseMismatch, match="1 of the 24 tensors .*layers.1.self_attn.q_proj.hada_w1_a"):
        put_on(load_model(tiny_base), folder, changes_base=False)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("base_model.model.model.embed_tokens.weight", "modules_to_save"),
        ("base_model.model.model.norm.weight", "modules_to_save"),
        ("base_model.model.lm_head.trainable_tokens_delta", "trained tokens"),
    ],
)
def test_tensors_beside_the_kinds_own_are_refused(make_kind: MakeKind, tiny_base: Path, name: str, reason: str) -> None:
    folder = _with_tensor(make_kind(peft.LoHaConfig), name, torch.ones(3, 32))
    with pytest.raises(UnsupportedAdapter, match=reason):
        put_on(load_model(tiny_base), folder, changes_base=False)


def test_a_name_that_is_too_long_is_refused_before_its_pattern(make_kind: MakeKind, tiny_base: Path) -> None:
    folder = _with_tensor(make_kind(peft.LoHaConfig), "base_model.model" + ".a" * 250 + ".weight", torch.ones(1))
    with pytest.raises(InvalidAdapter, match="more than the 500 that are read"):
        put_on(load_model(tiny_base), folder, changes_base=False)


def test_wrong_shapes_are_told(make_kind: MakeKind, tiny_base: Path) -> None:
    folder = make_kind(peft.LoHaConfig)
    name = next(name for name in load_file(folder / "adapter_model.safetensors") if "hada_w1_a" in name)
    _with_tensor(folder, name, torch.ones(3, 3))
    with pytest.raises(BaseMismatch, match="size mismatch"):
        put_on(load_model(tiny_base), folder, changes_base=False)


def test_what_peft_cannot_read_is_told(make_kind: MakeKind, tiny_base: Path) -> None:
    folder = make_kind(peft.LoHaConfig)
    config = json.loads((folder / "adapter_config.json").read_text())
    for broken in ({"target_modules": ["nowhere"]}, {"target_modules": "nowhere.*"}, {"r": "eight"}):
        (folder / "adapter_config.json").write_text(json.dumps({**config, **broken}))
        with pytest.raises(InvalidAdapter, match="peft cannot load it"):
            put_on(load_model(tiny_base), folder, changes_base=False)


@pytest.mark.parametrize("config", [peft.IA3Config, peft.GloraConfig])
def test_changed_biases_are_refused(make_kind: MakeKind, biased_base: Path, config: Any) -> None:
    model = load_model(biased_base)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.fill_(0.5)
    fields = {"feedforward_modules": []} if config is peft.IA3Config else {}
    original = put_on(model, make_kind(config, model=biased_base, **fields), changes_base=False)
    with pytest.raises(UnsupportedAdapter, match="bias of model.layers.0.self_attn.q_proj"):
        list(original.updates())


def test_embeddings_are_refused(make_kind: MakeKind, tiny_base: Path) -> None:
    folder = make_kind(peft.LoraConfig, target_modules=["embed_tokens", "q_proj"])
    with pytest.raises(UnsupportedAdapter, match="embed_tokens.*linear layers"):
        list(put_on(load_model(tiny_base), folder, changes_base=False).updates())


def test_a_kind_that_needs_a_package_which_is_not_there(
    make_kind: MakeKind, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_kind(PEFT_TYPE_TO_CONFIG_MAPPING["ADAMSS"])
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(UnsupportedAdapter, match="without another package: .*scikit-learn"):
        put_on(load_model(tiny_base, "float32"), folder, changes_base=False)
