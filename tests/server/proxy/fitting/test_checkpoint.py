"""What is read of a model, from a folder and from the Hub."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, snapshot_download

from loraloom.adapters.errors import InvalidBase
from loraloom.server.proxy.fitting.checkpoint import read_checkpoint
from tests.adapters.conftest import hub
from tests.server.proxy import configurations as known

__all__ = ["hub"]


def test_a_real_folder(tiny_base: Path) -> None:
    tiny = read_checkpoint(tiny_base)
    assert (tiny.name, tiny.architecture.layers) == (str(tiny_base), 2)
    assert tiny.shapes["model.embed_tokens.weight"] == (96, 32)
    matrices = tiny.architecture.parameters
    assert tiny.parameters == matrices + 5 * 32  # the norms
    assert tiny.stored == 4 * tiny.parameters


def test_weights_in_several_files(tmp_path: Path) -> None:
    folder = known.write_model(tmp_path / "model", known.LLAMA2_7B)
    known.write_weights(folder / "model-00001-of-00002.safetensors", {"a": (30, 2)})
    known.write_weights(folder / "model-00002-of-00002.safetensors", {"b": (7,), "c": (3,)}, "F8_E4M3")
    model = read_checkpoint(folder)
    assert (model.parameters, model.stored) == (70, 130)
    assert model.shapes == {"a": (30, 2), "b": (7,), "c": (3,)}


def test_a_folder_that_lacks_some_of_its_weights(tmp_path: Path) -> None:
    folder = known.write_model(tmp_path / "model", known.LLAMA2_7B)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    assert dict(read_checkpoint(folder).shapes) == {}  # none is there: whoever asks has not downloaded them yet
    known.write_weights(folder / "model-1.safetensors", {"a": (3, 2)})
    with pytest.raises(InvalidBase, match=r"lacks model-2\.safetensors: download"):
        read_checkpoint(folder)
    known.write_weights(folder / "model-2.safetensors", {"b": (3, 2)})
    assert read_checkpoint(folder).parameters == 12
    index.write_text("[]")
    with pytest.raises(InvalidBase, match=r"index\.json is damaged"):
        read_checkpoint(folder)


def test_packed_weights_are_counted_by_the_configuration(tmp_path: Path) -> None:
    config = {**known.LLAMA2_7B, "quantization_config": {"quant_method": "gptq"}}
    folder = known.write_model(tmp_path / "model", config)
    known.write_weights(folder / "model.safetensors", {"a.qweight": (8, 8)}, "I32")
    model = read_checkpoint(folder)
    assert (model.parameters, model.stored) == (model.architecture.parameters, 256)


def test_a_folder_without_weights_as_safetensors(tmp_path: Path) -> None:
    folder = known.write_model(tmp_path / "model", known.LLAMA2_7B)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    model = read_checkpoint(folder)
    assert (dict(model.shapes), model.stored) == ({}, 0)
    assert model.parameters == model.architecture.parameters


def test_damaged_weights(tmp_path: Path) -> None:
    folder = known.write_model(tmp_path / "model", known.LLAMA2_7B)
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(InvalidBase, match="ends within its header"):
        read_checkpoint(folder)


def test_of_the_hub_only_small_files_and_headers_are_fetched(hub: Any, tiny_base: Path) -> None:
    hub.publish("org/tiny", tiny_base)
    model, local = read_checkpoint("org/tiny"), read_checkpoint(tiny_base)
    assert (model.architecture, model.tokens, dict(model.shapes)) == (local.architecture, local.tokens, local.shapes)
    assert (model.name, model.stored) == ("org/tiny", local.stored)
    cached = {path.name for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.is_symlink()}
    assert cached == {"config.json", "tokenizer.json", "tokenizer_config.json"}


def test_a_half_cached_model_is_asked_for_at_the_hub(hub: Any, tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "two-files"
    shutil.copytree(tiny_base, folder)
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    known.write_weights(folder / "model-2.safetensors", {"x": (3, 2)})
    index = {"weight_map": {"model.norm.weight": "model-1.safetensors", "x": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    hub.publish("org/tiny", folder)
    snapshot_download("org/tiny", allow_patterns=["model-2.safetensors"])
    assert read_checkpoint("org/tiny").parameters == read_checkpoint(tiny_base).parameters + 6


def test_a_cached_model_needs_no_network(hub: Any, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.publish("org/tiny", tiny_base)
    snapshot_download("org/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert read_checkpoint("org/tiny").shapes == read_checkpoint(tiny_base).shapes
    assert hub.requests == []


def test_without_the_network_the_configuration_tells_the_sizes(
    hub: Any, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish("org/tiny", tiny_base)
    read_checkpoint("org/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = read_checkpoint("org/tiny")
    assert (dict(model.shapes), model.parameters) == ({}, model.architecture.parameters)


@pytest.mark.parametrize("name", ["nowhere", "no such:thing", "\0"])
def test_out_of_reach(hub: Any, name: str) -> None:
    with pytest.raises(InvalidBase, match="Hugging Face Hub"):
        read_checkpoint(name)
