"""Converted adapters predict what the originals do, or what is lost is what is told."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from loraloom.adapters.arithmetic.factors import Factors
from loraloom.adapters.convert.convert import Options, _judged, _Measured, _Shortened, convert, extract
from loraloom.adapters.convert.kinds import Kind
from loraloom.adapters.convert.probe import Divergence, Probe
from loraloom.adapters.errors import (
    BaseMismatch,
    ConversionTooRough,
    InvalidAdapter,
    InvalidBase,
    UnsupportedAdapter,
)
from loraloom.adapters.manifest import read_manifest
from loraloom.adapters.normal import normalise

from .conftest import MakeKind, logits, merged_updates, updates

NEAR = {"atol": 3e-5, "rtol": 1e-4}
ALL = Options(max_kl=1e9)
EXACT: list[tuple[str, Any, dict[str, Any], int]] = [
    ("AdaLoRA", peft.AdaLoraConfig, {"init_r": 6, "target_r": 4, "lora_alpha": 8, "total_step": 10}, 6),
    ("VeRA", peft.VeraConfig, {"r": 5}, 5),
    ("LoHa", peft.LoHaConfig, {"r": 3, "alpha": 6}, 9),
    ("HRA", peft.HRAConfig, {"r": 4}, 4),
    ("MiSS", peft.MissConfig, {"r": 4}, 4),
    ("DeLoRA", peft.DeloraConfig, {"r": 4}, 4),
    ("VB-LoRA", peft.VBLoRAConfig, {"r": 3, "vector_length": 8, "num_vectors": 16, "topk": 2}, 3),
    ("GraLoRA", peft.GraloraConfig, {"r": 4, "gralora_k": 2}, 8),
    ("PVeRA", PEFT_TYPE_TO_CONFIG_MAPPING["PVERA"], {"r": 4}, 4),
    ("PSOFT", PEFT_TYPE_TO_CONFIG_MAPPING["PSOFT"], {"r": 4}, 4),
    ("DEFT", PEFT_TYPE_TO_CONFIG_MAPPING["DEFT"], {}, 8),
    ("AdaMSS", PEFT_TYPE_TO_CONFIG_MAPPING["ADAMSS"], {}, 5),
    ("TinyLoRA", PEFT_TYPE_TO_CONFIG_MAPPING["TINYLORA"], {}, 2),
    ("Uni-LoRA", PEFT_TYPE_TO_CONFIG_MAPPING["UNILORA"], {}, 4),
]
APPROXIMATE: list[tuple[str, Any, dict[str, Any]]] = [
    ("DoRA", peft.LoraConfig, {"r": 4, "use_dora": True}),
    ("LoKr", peft.LoKrConfig, {"r": 4, "decompose_both": True}),
    ("(IA)³", peft.IA3Config, {"feedforward_modules": ["down_proj"]}),
    ("OFT", peft.OFTConfig, {"oft_block_size": 8}),
    ("BOFT", peft.BOFTConfig, {"boft_block_size": 4}),
    ("GLoRA", peft.GloraConfig, {"r": 4}),
    ("HiRA", peft.HiraConfig, {"r": 4}),
    ("FourierFT", peft.FourierFTConfig, {"n_frequency": 64}),
    ("RandLoRA", peft.RandLoraConfig, {"r": 4}),
    ("C3A", peft.C3AConfig, {"block_size": 16}),
    ("SHiRA", peft.ShiraConfig, {"r": 2}),
    ("RoAd", peft.RoadConfig, {"group_size": 16}),
    ("WaveFT", peft.WaveFTConfig, {"n_frequency": 64}),
    ("FRoD", PEFT_TYPE_TO_CONFIG_MAPPING["FROD"], {}),
    ("OSF", PEFT_TYPE_TO_CONFIG_MAPPING["OSF"], {}),
    ("PEANuT", PEFT_TYPE_TO_CONFIG_MAPPING["PEANUT"], {}),
    ("SuperTuning", PEFT_TYPE_TO_CONFIG_MAPPING["SUPERTUNING"], {}),
]


@pytest.fixture
def narrow_base(tiny_base: Path, tmp_path: Path) -> Path:
    """The tiny base in bfloat16."""
    folder = tmp_path / "narrow"
    AutoModelForCausalLM.from_pretrained(tiny_base).to(torch.bfloat16).save_pretrained(folder)
    for file in tiny_base.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize(("name", "config", "fields", "rank"), EXACT, ids=[case[0] for case in EXACT])
def test_exact_kinds_predict_the_same(
    make_kind: MakeKind, tiny_base: Path, out: Path, name: str, config: Any, fields: dict[str, Any], rank: int
) -> None:
    folder = make_kind(config, **fields)
    conversion = convert(folder, out, tiny_base)
    wanted = logits(tiny_base, folder)
    torch.testing.assert_close(logits(tiny_base, out), wanted, **NEAR)
    assert not torch.allclose(logits(tiny_base), wanted, **NEAR)
    assert conversion.kind == name
    assert conversion.exact
    assert conversion.relative_error < 1e-6
    assert conversion.kl is not None
    assert conversion.base_kl is not None
    assert conversion.kl < 1e-8 < 1e-6 < conversion.base_kl
    assert (conversion.rank, conversion.modules, conversion.top1) == (rank, 6, 1.0)
    assert {module.rank for module in read_manifest(out).modules.values()} == {rank}


@pytest.mark.parametrize(("name", "config", "fields"), APPROXIMATE, ids=[case[0] for case in APPROXIMATE])
def test_approximate_kinds_predict_the_same_at_full_rank(
    make_kind: MakeKind, tiny_base: Path, out: Path, name: str, config: Any, fields: dict[str, Any]
) -> None:
    folder = make_kind(config, **fields)
    conversion = convert(folder, out, tiny_base, Options(rank=32))
    wanted = logits(tiny_base, folder)
    torch.testing.assert_close(logits(tiny_base, out), wanted, **NEAR)
    assert not torch.allclose(logits(tiny_base), wanted, **NEAR)
    assert conversion.kind == name
    assert conversion.exact
    assert conversion.kl is not None
    assert conversion.kl < 1e-7


@pytest.mark.parametrize("rank", [1, 3, 7])
@pytest.mark.parametrize(("name", "config", "fields"), APPROXIMATE[:5], ids=[case[0] for case in APPROXIMATE[:5]])
def test_the_error_at_low_rank_is_that_of_eckart_and_young(
    make_kind: MakeKind, tiny_base: Path, out: Path, name: str, config: Any, fields: dict[str, Any], rank: int
) -> None:
    folder = make_kind(config, **fields)
    conversion = convert(folder, out, tiny_base, Options(rank=rank, max_kl=1e9))
    whole, made = merged_updates(tiny_base, folder), updates(out)
    assert made.keys() == whole.keys()
    total = sum(float(update.norm()) ** 2 for update in whole.values())
    tails = sum(float((torch.linalg.svdvals(update)[rank:] ** 2).sum()) for update in whole.values())
    dense = sum(float((whole[path] - made[path]).norm()) ** 2 for path in whole)
    assert conversion.rank == rank
    assert conversion.relative_error == pytest.approx((tails / total) ** 0.5, rel=1e-4)
    assert conversion.relative_error == pytest.approx((dense / total) ** 0.5, rel=1e-4)
    assert not conversion.exact


@pytest.mark.parametrize("energy", [0.3, 0.9, 0.999])
def test_an_energy_is_kept_by_the_smallest_ranks(
    make_kind: MakeKind, tiny_base: Path, out: Path, energy: float
) -> None:
    folder = make_kind(peft.OFTConfig, oft_block_size=8)
    convert(folder, out, tiny_base, Options(energy=energy, max_kl=1e9))
    modules = read_manifest(out).modules
    for path, update in merged_updates(tiny_base, folder).items():
        shares = torch.linalg.svdvals(update) ** 2
        shares = shares.cumsum(0) / shares.sum()
        assert modules[path].rank == int((shares < energy).sum()) + 1


def test_without_options_ranks_are_capped(make_kind: MakeKind, tiny_base: Path, out: Path) -> None:
    folder = make_kind(peft.IA3Config, feedforward_modules=["down_proj"])
    assert convert(folder, out, tiny_base, Options(max_rank=5, max_kl=1e9)).rank == 5


@pytest.mark.parametrize("narrow", [False, True])
def test_ranks_that_adalora_gave_up_are_gone(
    make_kind: MakeKind, tiny_base: Path, narrow_base: Path, out: Path, narrow: bool
) -> None:
    model = narrow_base if narrow else tiny_base
    fields = {"init_r": 6, "target_r": 4, "lora_alpha": 8, "total_step": 10}
    folder = make_kind(peft.AdaLoraConfig, model=model, **fields)
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    kept = {}
    for name, tensor in tensors.items():
        rows = [0, 2, 3] if "q_proj" in name else [0, 1, 2, 3, 4, 5]
        kept[name] = (tensor[:, rows] if "lora_B" in name else tensor[rows]).contiguous()
    save_file(kept, folder / "adapter_model.safetensors")
    layers = [re.sub(r"^base_model.model.(.*)\.lora_E$", r"\1", name) for name in tensors if "lora_E" in name]
    config["rank_pattern"] = {
        f"{layer}.lora_E": [i in (0, 2, 3) or "q_proj" not in layer for i in range(6)] for layer in layers
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    conversion = convert(folder, out, model)
    torch.testing.assert_close(logits(model, out), logits(model, folder), **NEAR)
    ranks = {path.rpartition(".")[2]: module.rank for path, module in read_manifest(out).modules.items()}
    assert (conversion.rank, ranks["q_proj"], ranks["v_proj"]) == (6, 3, 6)


@pytest.mark.parametrize(("name", "config", "fields", "rank"), EXACT, ids=[case[0] for case in EXACT])
def test_exact_kinds_lose_nothing_on_a_bfloat16_base(
    make_kind: MakeKind, narrow_base: Path, out: Path, name: str, config: Any, fields: dict[str, Any], rank: int
) -> None:
    folder = make_kind(config, model=narrow_base, **fields)
    conversion = convert(folder, out, narrow_base)
    torch.testing.assert_close(logits(narrow_base, out), logits(narrow_base, folder), **NEAR)
    assert conversion.kl is not None
    assert conversion.kl < 1e-8


@pytest.mark.parametrize(("name", "config", "fields"), APPROXIMATE, ids=[case[0] for case in APPROXIMATE])
def test_approximate_kinds_lose_no_more_on_a_bfloat16_base(
    make_kind: MakeKind, narrow_base: Path, out: Path, name: str, config: Any, fields: dict[str, Any]
) -> None:
    folder = make_kind(config, model=narrow_base, **fields)
    convert(folder, out, narrow_base, Options(rank=32))
    torch.testing.assert_close(logits(narrow_base, out), logits(narrow_base, folder), **NEAR)


def test_transposed_weights_are_turned(make_kind: MakeKind, tiny_base: Path, tmp_path: Path, out: Path) -> None:
    model = tmp_path / "gpt2"
    GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=512)).save_pretrained(model)
    for file in tiny_base.glob("tokenizer*"):
        (model / file.name).write_bytes(file.read_bytes())
    fields = {"target_modules": ["c_attn"], "fan_in_fan_out": True}
    plain = make_kind(peft.LoraConfig, model=model, r=3, **fields)
    dora = make_kind(peft.LoraConfig, model=model, r=3, use_dora=True, **fields)
    for folder, options, name in (
        (plain, Options(), "LoRA of transposed weights"),
        (dora, Options(rank=32), "DoRA"),
    ):
        conversion = convert(folder, out, model, options)
        torch.testing.assert_close(logits(model, out), logits(model, folder), **NEAR)
        assert (conversion.kind, conversion.exact) == (name, True)


def test_the_store_takes_what_is_written(make_kind: MakeKind, tiny_base: Path, tmp_path: Path, out: Path) -> None:
    convert(make_kind(peft.LoKrConfig, r=4, decompose_both=True), out, tiny_base, ALL)
    (tmp_path / "normal").mkdir()
    normal = normalise(out, tmp_path / "normal")
    assert len(normal.norms) == 6
    assert sorted(path.name for path in out.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_a_rough_conversion_is_refused_with_its_numbers(make_kind: MakeKind, tiny_base: Path, out: Path) -> None:
    folder = make_kind(peft.OFTConfig, oft_block_size=8, strength=1)
    allowed = convert(folder, out, tiny_base, Options(rank=2, max_kl=1e9))
    assert allowed.kl is not None
    with pytest.raises(ConversionTooRough, match="larger rank or energy") as caught:
        convert(folder, out, tiny_base, Options(rank=2, max_kl=allowed.kl / 2))
    error = caught.value
    assert (error.kl, error.limit, error.rank) == (pytest.approx(allowed.kl), allowed.kl / 2, 2)
    assert error.relative_error == pytest.approx(allowed.relative_error)
    assert f"{error.kl:.3g}" in str(error)


def test_what_does_little_is_not_replaced_by_nothing(make_kind: MakeKind, tiny_base: Path, out: Path) -> None:
    folder = make_kind(peft.OFTConfig, oft_block_size=8)
    allowed = convert(folder, out, tiny_base, Options(rank=1, max_kl=1e9))
    assert allowed.kl is not None
    assert allowed.base_kl is not None
    assert allowed.base_kl / 10 < allowed.kl < 0.05
    with pytest.raises(ConversionTooRough) as caught:
        convert(folder, out, tiny_base, Options(rank=1))
    assert caught.value.limit == pytest.approx(allowed.base_kl / 10)


@pytest.mark.parametrize(("kl", "error"), [(1e-3, 1e-8), (1e-12, 1e-2), (float("nan"), 1e-8)])
def test_an_exact_kind_that_is_not_exact_is_a_fault(kl: float, error: float) -> None:
    made = _Shortened({"layer": Factors(torch.ones(1, 2), torch.ones(2, 1))}, error)
    measured = _Measured(Probe("built-in", ((1, 2),)), 1.0, Divergence(kl, 1.0))
    with pytest.raises(ConversionTooRough, match="fault of LoraLoom's"):
        _judged(Kind("VeRA", "exact"), made, measured, Options(max_kl=1e9))
    sound = replace(measured, converted=Divergence(1e-9, 1.0))
    assert _judged(Kind("VeRA", "exact"), replace(made, relative_error=1e-8), sound, Options()).exact


def test_an_exact_kind_can_be_cut_by_its_user(make_kind: MakeKind, tiny_base: Path, out: Path) -> None:
    folder = make_kind(peft.LoHaConfig, r=3)
    with pytest.raises(UnsupportedAdapter, match="rank 9, and the limit is 8"):
        convert(folder, out, tiny_base, Options(max_rank=8))
    conversion = convert(folder, out, tiny_base, Options(rank=4, max_kl=1e9))
    assert (conversion.rank, conversion.exact) == (4, False)


def test_a_text_of_ones_own_is_measured_and_named(
    make_kind: MakeKind, tiny_base: Path, tmp_path: Path, out: Path
) -> None:
    text = tmp_path / "probe.txt"
    text.write_text("select the date from the table where the name is known " * 3)
    folder = make_kind(peft.LoKrConfig, r=4, decompose_both=True)
    own = convert(folder, out, tiny_base, Options(rank=1, max_kl=1e9, probe=text))
    built_in = convert(folder, out, tiny_base, Options(rank=1, max_kl=1e9))
    assert built_in.probe == "built-in"
    assert own.probe != "built-in"
    assert own.tokens < built_in.tokens
    assert own.kl != built_in.kl


def test_a_conversion_is_plain_values(make_kind: MakeKind, tiny_base: Path, out: Path) -> None:
    conversion = convert(make_kind(peft.VeraConfig, r=2), out, tiny_base)
    assert json.loads(json.dumps(conversion.as_json())) == conversion.as_json()
    assert conversion.as_json()["rank"] == 2


def test_plain_lora_needs_no_conversion(make_kind: MakeKind, tiny_base: Path, out: Path) -> None:
    with pytest.raises(UnsupportedAdapter, match="already"):
        convert(make_kind(peft.LoraConfig), out, tiny_base)


def test_an_untrained_adapter_is_refused(make_kind: MakeKind, tiny_base: Path, out: Path) -> None:
    with pytest.raises(InvalidAdapter, match="changes nothing"):
        convert(make_kind(peft.LoHaConfig, strength=0), out, tiny_base)


def test_an_adapter_that_diverged_is_refused(make_kind: MakeKind, tiny_base: Path, out: Path) -> None:
    with pytest.raises(InvalidAdapter, match="NaN"):
        convert(make_kind(peft.IA3Config, feedforward_modules=[], strength=float("inf")), out, tiny_base)


def test_another_base_is_refused(make_kind: MakeKind, tiny_base: Path, tmp_path: Path, out: Path) -> None:
    narrow = AutoModelForCausalLM.from_pretrained(tiny_base)
    narrow.config.intermediate_size = 24
    type(narrow)(narrow.config).save_pretrained(tmp_path / "other")
    for file in tiny_base.glob("tokenizer*"):
        (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(BaseMismatch, match="base model"):
        convert(make_kind(peft.VeraConfig, r=2), out, tmp_path / "other")


def test_a_base_that_is_not_there_is_told(make_kind: MakeKind, tmp_path: Path, out: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidBase, match="empty"):
        convert(make_kind(peft.VeraConfig, r=2), out, tmp_path / "empty")


def _fine_tuned(base: Path, folder: Path, rank: int) -> Path:
    """The base with an update of this rank on every linear layer, which its numbers hold exactly."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("_proj.weight"):
                rounded = (weight * 256).round() / 256
                b, a = torch.randint(-3, 4, (weight.shape[0], rank)), torch.randint(-3, 4, (rank, weight.shape[1]))
                weight.copy_(rounded + (b @ a) / 64)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("rank", [1, 4])
def test_the_rank_of_a_fine_tuned_update_is_found(tiny_base: Path, tmp_path: Path, out: Path, rank: int) -> None:
    rounded = _fine_tuned(tiny_base, tmp_path / "rounded", 0)
    for file in tiny_base.glob("tokenizer*"):
        (rounded / file.name).write_bytes(file.read_bytes())
    tuned = _fine_tuned(tiny_base, tmp_path / "tuned", rank)
    conversion = extract(tuned, rounded, out, Options(energy=1))
    assert {module.rank for module in read_manifest(out).modules.values()} == {rank}
    assert (conversion.modules, conversion.exact) == (14, True)
    torch.testing.assert_close(logits(rounded, out), logits(tuned), **NEAR)


def test_a_fine_tuned_update_is_truncated(tiny_base: Path, tmp_path: Path, out: Path) -> None:
    tuned = _fine_tuned(tiny_base, tmp_path / "tuned", 6)
    with pytest.raises(ConversionTooRough):
        extract(tuned, tiny_base, out, Options(rank=1, max_kl=1e-6))
    conversion = extract(tuned, tiny_base, out, Options(rank=1, max_kl=1e9))
    assert conversion.rank == 1
    assert 0.5 < conversion.relative_error < 1


def test_the_base_itself_is_no_fine_tuned_model(tiny_base: Path, out: Path) -> None:
    with pytest.raises(InvalidAdapter, match="changes nothing"):
        extract(tiny_base, tiny_base, out)
