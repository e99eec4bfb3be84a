import hashlib
import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from loraloom.adapters import normal as normal_module
from loraloom.adapters.errors import InvalidAdapter, UnsupportedAdapter
from loraloom.adapters.manifest import CONFIG_FILE, WEIGHTS_FILE, read_manifest, tensor_name
from loraloom.adapters.normal import FILES, Normal, digest_of, fold, normalise, update_norm
from tests.fuzz.cases import little_memory

MakeAdapter = Callable[..., Path]

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
    "odd scaling": {"r": 3, "lora_alpha": 8, "dtype": "bfloat16"},
    "rslora": {"r": 8, "lora_alpha": 16, "use_rslora": True},
    "rslora bfloat16": {"r": 8, "use_rslora": True, "dtype": "bfloat16"},
    "patterns": {
        "target_modules": "all-linear",
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\..*": 7},
        "alpha_pattern": {"k_proj": 3, "model.layers.0.mlp.up_proj": 5},
        "use_rslora": True,
    },
    "last layer only": {"target_modules": ["gate_proj", "o_proj"], "layers_to_transform": [1]},
    "output layer": {"target_modules": ["lm_head"]},
}


def _normalise(folder: Path, out: Path, **options: Any) -> Normal:
    out.mkdir()
    return normalise(folder, out, **options)


def _update(folder: Path, path: str) -> torch.Tensor:
    tensors = load_file(folder / WEIGHTS_FILE)
    return tensors[tensor_name(path, "B")].double() @ tensors[tensor_name(path, "A")].double()


def _change(folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    tensors = load_file(folder / WEIGHTS_FILE)
    save_file({name: change(name, tensor) for name, tensor in tensors.items()}, folder / WEIGHTS_FILE)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_the_update_is_what_peft_merges_into_the_base(
    make_adapter: MakeAdapter, biased_base: Path, tmp_path: Path, kind: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = make_adapter(model=biased_base, **KINDS[kind])
    normal = _normalise(folder, tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(biased_base, dtype=torch.float64)
    before = {name: parameter.clone() for name, parameter in base.named_parameters()}
    merged = PeftModel.from_pretrained(base, folder).double().merge_and_unload()
    changed = set()
    for name, parameter in merged.named_parameters():
        path, expected = name.removesuffix(".weight"), parameter - before[name]
        if path in normal.manifest.modules:
            changed.add(path)
            torch.testing.assert_close(_update(tmp_path / "out", path), expected, rtol=1e-6, atol=1e-7)
            assert normal.norms[path] == pytest.approx(expected.norm().item(), rel=1e-6)
    assert changed == normal.manifest.modules.keys() == normal.norms.keys()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of vLLM's own imports
@pytest.mark.parametrize("kind", KINDS)
def test_vllm_reads_the_same_update(make_adapter: MakeAdapter, tmp_path: Path, kind: str) -> None:
    peft_helper = pytest.importorskip("vllm.lora.peft_helper", reason="needs vLLM")
    from vllm.config.lora import LoRAConfig
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.lora_weights import PackedLoRALayerWeights

    normal = _normalise(make_adapter(**KINDS[kind]), tmp_path / "out")
    helper = peft_helper.PEFTHelper.from_local_dir(str(tmp_path / "out"), max_position_embeddings=128)
    helper.validate_legal(LoRAConfig(max_lora_rank=8))
    assert (helper.r, helper.vllm_lora_scaling_factor) == (normal.manifest.rank, 1.0)
    expected = {path.rpartition(".")[2] for path in normal.manifest.modules}
    model = LoRAModel.from_local_checkpoint(str(tmp_path / "out"), expected, helper, device="cpu", dtype=torch.float64)
    assert model.loras.keys() == normal.manifest.modules.keys()
    packed = PackedLoRALayerWeights.pack([None, *model.loras.values()])
    assert packed.scaling == [None] + [1] * len(model.loras)
    for path, a, b in zip(model.loras, packed.lora_a[1:], packed.lora_b[1:], strict=True):
        assert torch.equal(b @ a, _update(tmp_path / "out", path))


def test_the_configuration_scales_by_one(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    normal = _normalise(make_adapter(**KINDS["patterns"]), tmp_path / "out")
    config = json.loads((tmp_path / "out" / CONFIG_FILE).read_text())
    assert config["r"] == config["lora_alpha"] == 7
    assert config["target_modules"] == sorted(normal.manifest.modules)
    assert not {"rank_pattern", "alpha_pattern"} & config.keys()
    assert (config["use_rslora"], config["bias"], config["base_model_name_or_path"]) == (False, "none", None)
    assert set(normal.manifest.scaling.values()) == {1.0}
    assert {module.rank for module in normal.manifest.modules.values()} == {2, 4, 7}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_normal_form_is_its_own_normal_form(make_adapter: MakeAdapter, tmp_path: Path, kind: str) -> None:
    first = _normalise(make_adapter(**KINDS[kind]), tmp_path / "once")
    assert _normalise(tmp_path / "once", tmp_path / "twice") == first
    assert all((tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes() for name in FILES)


def test_equal_updates_have_one_digest(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    """However peft's configuration came to the scaling 2, and whatever else it says."""
    folders = [
        make_adapter("a", r=4, lora_alpha=8),
        make_adapter("b", r=4, lora_alpha=4, use_rslora=True, lora_dropout=0.1),
        make_adapter("c", r=4, lora_alpha=1, alpha_pattern={".*": 8}),
    ]
    digests = {_normalise(folder, tmp_path / folder.name).digest for folder in folders}
    assert len(digests) == 1
    assert _normalise(make_adapter("d", seed=1, r=4, lora_alpha=8), tmp_path / "d").digest not in digests


def test_a_power_of_two_keeps_the_type_and_other_scalings_widen_b(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    _normalise(make_adapter("a", r=4, lora_alpha=8, dtype="bfloat16"), tmp_path / "a")
    assert {tensor.dtype for tensor in load_file(tmp_path / "a" / WEIGHTS_FILE).values()} == {torch.bfloat16}
    _normalise(make_adapter("b", r=4, lora_alpha=6, dtype="bfloat16"), tmp_path / "b")
    for name, tensor in load_file(tmp_path / "b" / WEIGHTS_FILE).items():
        assert tensor.dtype == (torch.bfloat16 if ".lora_A." in name else torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_folding_loses_nothing(dtype: torch.dtype) -> None:
    b = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    for scaling in (1.0, 2.0, 0.125):
        assert fold(b, scaling).dtype == dtype
        assert torch.equal(fold(b, scaling).double(), b.double() * scaling)
    assert fold(b, math.sqrt(2)).dtype == torch.float32
    torch.testing.assert_close(fold(b, math.sqrt(2)).double(), b.double() * math.sqrt(2), rtol=2**-24, atol=0)


def test_folding_widens_where_the_narrow_type_would_overflow_or_vanish() -> None:
    huge, tiny = torch.tensor([[60000.0]], dtype=torch.float16), torch.tensor([[6e-8]], dtype=torch.float16)
    assert fold(huge, 2.0).item() == 2 * huge.item()
    assert fold(tiny, 0.25).item() == tiny.item() / 4


@pytest.mark.parametrize("shape", [(5, 3, 7), (3, 5, 2), (1, 1, 1), (4, 64, 3)])
def test_the_norm_is_that_of_the_product(shape: tuple[int, int, int]) -> None:
    out_features, rank, in_features = shape
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(rank, in_features, generator=generator), torch.randn(out_features, rank, generator=generator)
    assert update_norm(a, b) == pytest.approx((b.double() @ a.double()).norm().item(), rel=1e-12)
    assert update_norm(a, torch.zeros_like(b)) == 0


@pytest.mark.parametrize("shape", [(40, 3, 70), (3, 40, 70), (70, 40, 3), (1, 40, 1)])
@pytest.mark.parametrize("block", [1, 50, 300])
def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], block: int) -> None:
    out_features, rank, in_features = shape
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(rank, in_features, generator=generator), torch.randn(out_features, rank, generator=generator)
    whole, exact, rounded = update_norm(a, b), fold(b.bfloat16(), 2.0), fold(b.bfloat16(), math.sqrt(2))
    monkeypatch.setattr(normal_module, "_BLOCK", block)
    assert update_norm(a, b) == pytest.approx(whole, rel=1e-12)
    assert fold(b.bfloat16(), 2.0).dtype == torch.bfloat16
    assert torch.equal(fold(b.bfloat16(), 2.0), exact)
    assert torch.equal(fold(b.bfloat16(), math.sqrt(2)), rounded)
    last = torch.ones(7, 11, dtype=torch.bfloat16)
    last[-1, -1] = 1 + 2**-7
    assert fold(last, 3.0).dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 20000, 1), (1, 20000, 3), (3, 20000, 1)])
def test_a_rank_above_the_features_takes_no_matrix_of_its_square(shape: tuple[int, int, int]) -> None:
    out_features, rank, in_features = shape
    a, b = torch.ones(rank, in_features), torch.ones(out_features, rank)
    with little_memory():
        assert update_norm(a, b) == pytest.approx(rank * math.sqrt(out_features * in_features))


def test_folding_takes_no_wide_copy_of_the_whole() -> None:
    b = torch.zeros(2**21, 32, dtype=torch.bfloat16)
    with little_memory():
        assert fold(b, 2.0).dtype == torch.bfloat16


@pytest.mark.parametrize("factor", ["A", "B"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nan_and_infinity_are_refused(
    make_adapter: MakeAdapter, tmp_path: Path, factor: str, value: float, dtype: str
) -> None:
    target = tensor_name("model.layers.1.self_attn.q_proj", factor)

    def poison(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name == target:
            tensor[-1, -1] = value
        return tensor

    folder = _change(make_adapter(dtype=dtype), poison)
    with pytest.raises(InvalidAdapter, match=f"{target} holds NaN or infinity"):
        _normalise(folder, tmp_path / "out")


def test_an_overflowing_scaling_is_refused(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    folder = make_adapter(r=1, lora_alpha=1e30)
    _change(folder, lambda name, tensor: tensor * 1e10)
    with pytest.raises(InvalidAdapter, match="lora_B.weight holds NaN or infinity"):
        _normalise(folder, tmp_path / "out")


@pytest.mark.parametrize("factor", ["A", "B"])
def test_an_adapter_that_changes_nothing_is_refused_unless_asked_for(
    make_adapter: MakeAdapter, tmp_path: Path, factor: str
) -> None:
    folder = _change(make_adapter(), lambda name, tensor: tensor * 0 if f".lora_{factor}." in name else tensor)
    with pytest.raises(InvalidAdapter, match="changes nothing.*--allow-noop"):
        _normalise(folder, tmp_path / "refused")
    assert set(_normalise(folder, tmp_path / "out", allow_noop=True).norms.values()) == {0.0}


@pytest.mark.parametrize("change", ["another type is needed", "shorter"])
def test_weights_that_change_while_they_are_read_are_refused(
    make_adapter: MakeAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    folder = make_adapter(r=1, lora_alpha=3, dtype="bfloat16")
    _change(folder, lambda name, tensor: torch.ones_like(tensor))  # times 3 fits into bfloat16
    content = (folder / WEIGHTS_FILE).read_bytes()
    _change(folder, lambda name, tensor: torch.full_like(tensor, 1 + 2**-7))  # times 3 does not
    other = (folder / WEIGHTS_FILE).read_bytes() if change != "shorter" else content[:-1]
    (folder / WEIGHTS_FILE).write_bytes(content)

    def change_and_measure(a: torch.Tensor, b: torch.Tensor) -> float:
        (folder / WEIGHTS_FILE).write_bytes(other)
        return update_norm(a, b)

    monkeypatch.setattr(normal_module, "update_norm", change_and_measure)
    with pytest.raises(InvalidAdapter, match="changed while it was read"):
        _normalise(folder, tmp_path / "out")


def test_one_module_that_changes_something_is_enough(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    folder = _change(make_adapter(), lambda name, tensor: tensor if "layers.1.self_attn.q_proj" in name else tensor * 0)
    norms = _normalise(folder, tmp_path / "out").norms
    assert {path for path, norm in norms.items() if norm > 0} == {"model.layers.1.self_attn.q_proj"}


def test_refuses_what_the_manifest_refuses(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedAdapter, match="DoRA"):
        _normalise(make_adapter(use_dora=True), tmp_path / "out")


def test_the_digest_is_that_of_sha256sum(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    normal = _normalise(make_adapter(), tmp_path / "out")
    printed = subprocess.run(["sha256sum", *FILES], cwd=tmp_path / "out", capture_output=True, check=True).stdout
    assert normal.digest == digest_of(tmp_path / "out") == hashlib.sha256(printed).hexdigest()


@pytest.mark.parametrize("name", FILES)
def test_the_digest_covers_every_byte_of_both_files(make_adapter: MakeAdapter, tmp_path: Path, name: str) -> None:
    normal = _normalise(make_adapter(), tmp_path / "out")
    content = bytearray((tmp_path / "out" / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / "out" / name).write_bytes(content)
    assert digest_of(tmp_path / "out") != normal.digest
    (tmp_path / "out" / name).unlink()
    with pytest.raises(InvalidAdapter, match=name):
        digest_of(tmp_path / "out")


def test_the_digest_stays_the_same_from_release_to_release(tmp_path: Path) -> None:
    """A stored digest must be found again: this one changes only with the normal form itself."""
    (tmp_path / CONFIG_FILE).write_text(
        json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 3, "task_type": "CAUSAL_LM"})
    )
    a, b = torch.arange(4.0).reshape(1, 4), torch.arange(3.0).reshape(3, 1)
    path = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file({f"{path}.lora_A.weight": a.bfloat16(), f"{path}.lora_B.weight": b}, tmp_path / WEIGHTS_FILE)
    assert (
        _normalise(tmp_path, tmp_path / "out").digest
        == "f4bda8d38a28327824424c6a45177d1fc52ae69e449142394d059739d0b9e1be"
    )


def test_the_manifest_is_read_back_from_the_files(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    normal = _normalise(make_adapter(), tmp_path / "out")
    assert normal.manifest == read_manifest(tmp_path / "out")
