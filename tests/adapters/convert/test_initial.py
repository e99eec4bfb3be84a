"""Adapters that were trained on a changed base become updates of the base itself."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from loraloom.adapters.convert.convert import convert
from loraloom.adapters.convert.initial import initial_folder, read_initial
from loraloom.adapters.errors import InvalidAdapter
from loraloom.adapters.manifest import read_manifest

from .conftest import MakeKind, logits

NEAR = {"atol": 1e-4, "rtol": 1e-4}
Prepare = Callable[[Any, LoraConfig], None]


def _train(model: PeftModel) -> None:
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape))


def _save_initial(model: PeftModel, folder: Path) -> None:
    """As peft's documentation says: as an initialisation that changes nothing on loading."""
    config = model.peft_config["default"]
    init, config.init_lora_weights = config.init_lora_weights, True
    model.save_pretrained(folder)
    config.init_lora_weights = init


def _trained(base: Path, folder: Path, config: LoraConfig, prepare: Prepare | None = None) -> torch.Tensor:
    """Save the trained adapter, with its initial one beside; returns the predictions of the model that was trained."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base)
    if prepare:
        prepare(model, config)
    adapted = get_peft_model(model, config)
    _save_initial(adapted, folder / "initial")
    _train(adapted)
    adapted.save_pretrained(folder)
    with torch.no_grad():
        return adapted.eval()(torch.arange(48)[None] * 7 % 96).logits[0]


def _corda(model: Any, config: LoraConfig) -> None:
    from peft.tuners.lora.corda import preprocess_corda

    config.corda_config = peft.tuners.lora.config.CordaConfig()
    preprocess_corda(model, config, run_model=lambda: model(torch.arange(120)[None] * 5 % 96))


def _lora_ga(model: Any, config: LoraConfig) -> None:
    from peft.tuners.lora.loraga import preprocess_loraga

    config.lora_ga_config = peft.tuners.lora.config.LoraGAConfig()
    ids = torch.arange(100)[None] * 5 % 96
    preprocess_loraga(model, config, lambda: model(ids, labels=ids).loss.backward())


CASES = {
    "pissa": ("PiSSA", None),
    "pissa_niter_4": ("PiSSA", None),
    "olora": ("OLoRA", None),
    "corda": ("CorDA", _corda),
    "lora_ga": ("LoRA-GA", _lora_ga),
}


@pytest.mark.parametrize("init", CASES)
def test_with_the_initial_adapter_beside_the_update_is_exact(
    tiny_base: Path, tmp_path: Path, out: Path, init: str
) -> None:
    name, prepare = CASES[init]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=init)
    wanted = _trained(tiny_base, tmp_path / "given", config, prepare)
    conversion = convert(tmp_path / "given", out, tiny_base)
    torch.testing.assert_close(logits(tiny_base, out), wanted, **NEAR)
    assert not torch.allclose(logits(tiny_base), wanted, **NEAR)
    assert (conversion.kind, conversion.exact, conversion.rank) == (name, True, 8)
    assert not json.loads((out / "adapter_config.json").read_text()).get("init_lora_weights")


@pytest.mark.parametrize("init", ["pissa", "olora"])
@pytest.mark.parametrize("fields", [{}, {"use_rslora": True, "rank_pattern": {"q_proj": 2}}])
def test_without_it_pefts_initial_factors_are_computed_again(
    tiny_base: Path, tmp_path: Path, out: Path, init: str, fields: dict[str, Any]
) -> None:
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=init, **fields)
    wanted = _trained(tiny_base, tmp_path / "given", config)
    shutil.rmtree(tmp_path / "given" / "initial")
    conversion = convert(tmp_path / "given", out, tiny_base)
    torch.testing.assert_close(logits(tiny_base, out), wanted, **NEAR)
    assert (conversion.exact, conversion.rank) == (True, 8)
    ranks = {path.rpartition(".")[2]: module.rank for path, module in read_manifest(out).modules.items()}
    assert ranks["q_proj"] == (4 if fields else 8)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_bfloat16_base_gives_the_update_without_its_rounding(
    make_kind: MakeKind, tiny_base: Path, tmp_path: Path, out: Path, init: str
) -> None:
    narrow = tmp_path / "narrow"
    AutoModelForCausalLM.from_pretrained(tiny_base).to(torch.bfloat16).save_pretrained(narrow)
    for file in tiny_base.glob("tokenizer*"):
        shutil.copy(file, narrow)
    folder = make_kind(LoraConfig, model=narrow, r=4, init_lora_weights=init)
    conversion = convert(folder, out, narrow)
    torch.testing.assert_close(logits(narrow, out), logits(narrow, folder), **NEAR)
    assert conversion.rank == 8


def test_an_initial_adapter_of_another_training_is_refused(make_kind: MakeKind, tiny_base: Path, out: Path) -> None:
    folder = make_kind(LoraConfig, init_lora_weights="pissa", r=4)
    for other in (make_kind(LoraConfig, r=2), make_kind(LoraConfig, r=4, target_modules=["q_proj"])):
        shutil.copytree(other, folder / "initial")
        with pytest.raises(InvalidAdapter, match="another training"):
            convert(folder, out, tiny_base)
        shutil.rmtree(folder / "initial")


def test_the_initial_adapter_is_found(make_kind: MakeKind) -> None:
    folder = make_kind(LoraConfig, r=2)
    assert initial_folder(folder) is None
    shutil.copytree(make_kind(LoraConfig, r=2), folder / "pissa_init")
    assert initial_folder(folder) == folder / "pissa_init"
    shutil.copytree(folder / "pissa_init", folder / "other_init")
    with pytest.raises(InvalidAdapter, match="other_init and pissa_init"):
        initial_folder(folder)
    (folder / "initial").symlink_to(folder / "pissa_init")
    with pytest.raises(InvalidAdapter, match="other_init and pissa_init"):
        initial_folder(folder)
    (folder / "initial").unlink()
    (folder / "other_init").rename(folder / "initial")
    assert initial_folder(folder) == folder / "initial"


def test_initial_factors_are_read_unscaled(make_kind: MakeKind) -> None:
    factors = read_initial(make_kind(LoraConfig, r=2, lora_alpha=64))
    a, b = factors["model.layers.1.self_attn.v_proj"]
    assert (tuple(a.shape), tuple(b.shape)) == ((2, 32), (16, 2))
    assert 0.02 < float(b.std()) < 0.5
