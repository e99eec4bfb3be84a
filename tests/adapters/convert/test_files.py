"""peft is given a copy without links and pickles, and what is written is plain LoRA."""

import os
import shutil
from pathlib import Path

import peft
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from loraloom.adapters.arithmetic.factors import Factors
from loraloom.adapters.convert.files import private_copy, write_lora
from loraloom.adapters.errors import InvalidAdapter
from loraloom.adapters.manifest import read_manifest

from .conftest import MakeKind

# The first path, as a pattern, also matches the second one unless its dots are escaped.
SHORT, LONG = "model.layers.1.self_attn.q_proj", "model.layers.0.self_attn.v_proj"


def test_only_two_files_are_copied(make_kind: MakeKind, tmp_path: Path) -> None:
    folder = make_kind(peft.LoHaConfig)
    torch.save({}, folder / "adapter_model.bin")
    copied = private_copy(folder, tmp_path / "copy")
    assert sorted(path.name for path in copied.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    for path in copied.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_the_initial_adapter_goes_along(make_kind: MakeKind, tmp_path: Path) -> None:
    folder = make_kind(peft.LoraConfig)
    shutil.copytree(make_kind(peft.LoraConfig), folder / "pissa_init")
    assert read_manifest(private_copy(folder, tmp_path / "copy") / "initial").rank == 8


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_links_are_not_followed(make_kind: MakeKind, tmp_path: Path, name: str) -> None:
    folder = make_kind(peft.LoHaConfig)
    os.rename(folder / name, tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(InvalidAdapter, match="symbolic link"):
        private_copy(folder, tmp_path / "copy")


def test_a_written_lora_is_the_whole_update_to_us_and_to_peft(tiny_base: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    updates = {
        SHORT: Factors(torch.randn(2, 32), torch.randn(32, 2)),
        LONG: Factors(torch.randn(5, 32), torch.randn(16, 5)),
    }
    write_lora(updates, tmp_path, "some/base")
    manifest = read_manifest(tmp_path)
    assert {path: module.rank for path, module in manifest.modules.items()} == {SHORT: 2, LONG: 5}
    assert set(manifest.scaling.values()) == {1.0}
    assert (manifest.base_model, manifest.dtype, manifest.rank) == ("some/base", "float32", 5)
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    before = {path: base.get_submodule(path).weight.clone() for path in updates}
    merged = PeftModel.from_pretrained(base, str(tmp_path), torch_device="cpu").merge_and_unload()
    for path, factors in updates.items():
        found = merged.get_submodule(path).weight - before[path]
        torch.testing.assert_close(found, factors.b @ factors.a, atol=1e-5, rtol=1e-5)
    assert len(load_file(tmp_path / "adapter_model.safetensors")) == 4
