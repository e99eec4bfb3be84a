import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loraloom.adapters.base import BaseFingerprint, check_fits, find_fingerprint, fingerprint
from loraloom.adapters.errors import BaseMismatch, InvalidBase
from loraloom.adapters.manifest import Manifest, read_manifest
from loraloom.adapters.tokenizer import tokenizer_digest

MakeAdapter = Callable[..., Path]


@pytest.fixture
def manifest(make_adapter: MakeAdapter) -> Manifest:
    return read_manifest(make_adapter(target_modules="all-linear"))


@pytest.fixture
def copied_base(tiny_base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_base, tmp_path / "base")


def _shard(folder: Path) -> Path:
    """The same model in two files."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[:7], names[7:]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def _rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]]) -> Path:
    save_file(dict(change(load_file(folder / "model.safetensors"))), folder / "model.safetensors")
    return folder


def test_the_modules_are_those_of_the_model(tiny_base: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    expected = {
        name: tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding)
    }
    base = fingerprint(tiny_base)
    assert base.modules == expected
    assert base.tokenizer == tokenizer_digest(tiny_base)


def test_a_sharded_model_has_the_same_fingerprint(tiny_base: Path, copied_base: Path) -> None:
    assert fingerprint(_shard(copied_base)) == fingerprint(tiny_base)
    assert fingerprint(copied_base).digest == fingerprint(str(tiny_base)).digest


def test_the_digest_covers_modules_shapes_and_tokenizer(tiny_base: Path) -> None:
    base = fingerprint(tiny_base)
    others = [
        BaseFingerprint(base.modules, None),
        BaseFingerprint({**base.modules, "lm_head": (97, 32)}, base.tokenizer),
        BaseFingerprint({**base.modules, "lm_head": None}, base.tokenizer),
        BaseFingerprint({**base.modules, "more": (1, 1)}, base.tokenizer),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == 5
    assert BaseFingerprint(dict(reversed(base.modules.items())), base.tokenizer).digest == base.digest


def test_other_weights_of_the_same_model_share_the_fingerprint(tiny_base: Path, copied_base: Path) -> None:
    _rewrite(copied_base, lambda tensors: {name: tensor.bfloat16() + 1 for name, tensor in tensors.items()})
    assert fingerprint(copied_base) == fingerprint(tiny_base)


def test_an_adapter_fits_its_own_base(tiny_base: Path, biased_base: Path, manifest: Manifest) -> None:
    check_fits(manifest, fingerprint(tiny_base))
    check_fits(manifest, fingerprint(biased_base))


def test_lora_on_a_tied_output_layer_fits(make_adapter: MakeAdapter, tiny_base: Path, biased_base: Path) -> None:
    manifest = read_manifest(make_adapter(target_modules=["lm_head"], model=biased_base))
    check_fits(manifest, fingerprint(tiny_base))


def test_modules_that_match_nothing_are_named(copied_base: Path, manifest: Manifest) -> None:
    _rewrite(copied_base, lambda tensors: {name: t for name, t in tensors.items() if ".layers.1." not in name})
    with pytest.raises(
        BaseMismatch, match=r"7 of 14 modules are not in the base: model\.layers\.1\.mlp\.down_proj, .*…"
    ):
        check_fits(manifest, fingerprint(copied_base))


def test_wrong_shapes_are_told_with_their_numbers(copied_base: Path, manifest: Manifest) -> None:
    path = "model.layers.0.self_attn.k_proj"
    _rewrite(copied_base, lambda tensors: {**tensors, f"{path}.weight": torch.ones(32, 64)})
    with pytest.raises(BaseMismatch, match=rf"1 of 14 modules have another shape .*{path} \(16 x 32, there 32 x 64\)"):
        check_fits(manifest, fingerprint(copied_base))


def test_an_adapter_of_the_bare_model_does_not_fit(tiny_base: Path, manifest: Manifest) -> None:
    """vLLM would load it, and find none of its modules."""
    bare = {path.removeprefix("model."): module for path, module in manifest.modules.items()}
    with pytest.raises(BaseMismatch, match="14 of 14"):
        check_fits(Manifest(bare, {}, None, None, "float32", {}), fingerprint(tiny_base))


def test_a_checkpoint_without_the_models_prefix_fits(copied_base: Path, manifest: Manifest) -> None:
    _rewrite(copied_base, lambda tensors: {name.removeprefix("model."): tensor for name, tensor in tensors.items()})
    check_fits(manifest, fingerprint(copied_base))


@pytest.mark.parametrize(
    ("parameter", "tensor"),
    [
        ("qweight", torch.zeros(4, 32, dtype=torch.int32)),
        ("weight_packed", torch.zeros(32, 4, dtype=torch.int32)),
        ("weight", torch.zeros(512, 1, dtype=torch.uint8)),
    ],
)
def test_a_packed_weight_fits_any_shape(
    copied_base: Path, manifest: Manifest, parameter: str, tensor: torch.Tensor
) -> None:
    path = "model.layers.0.self_attn.q_proj"

    def quantise(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        del tensors[f"{path}.weight"]
        return {**tensors, f"{path}.{parameter}": tensor, f"{path}.scales": torch.ones(4, 32)}

    base = fingerprint(_rewrite(copied_base, quantise))
    assert base.modules[path] is None
    assert f"{path}.scales" not in base.modules
    check_fits(manifest, base)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_eight_bit_weights_keep_their_shapes(copied_base: Path, tiny_base: Path, dtype: torch.dtype) -> None:
    _rewrite(copied_base, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
    assert fingerprint(copied_base).modules == fingerprint(tiny_base).modules


def test_links_as_in_the_hub_cache_are_followed(tiny_base: Path, tmp_path: Path) -> None:
    for file in tiny_base.iterdir():
        (tmp_path / file.name).symlink_to(file)
    assert fingerprint(tmp_path) == fingerprint(tiny_base)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    for look in (fingerprint, find_fingerprint):
        with pytest.raises(InvalidBase, match="has no model.safetensors"):
            look(str(tmp_path))


def test_a_missing_shard_is_named(copied_base: Path) -> None:
    (_shard(copied_base) / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InvalidBase, match="lacks model-00002-of-00002.safetensors"):
        find_fingerprint(str(copied_base))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"weight_map": 1}', '{"weight_map": {"a": "../../../etc/passwd"}}']
)
def test_a_damaged_index_is_refused(copied_base: Path, text: str) -> None:
    (_shard(copied_base) / "model.safetensors.index.json").write_text(text)
    with pytest.raises(InvalidBase, match=r"damaged|lacks passwd"):
        find_fingerprint(str(copied_base))


def test_a_truncated_weights_file_is_refused(copied_base: Path) -> None:
    content = (copied_base / "model.safetensors").read_bytes()
    (copied_base / "model.safetensors").write_bytes(content[:-4])
    with pytest.raises(InvalidBase, match="truncated"):
        find_fingerprint(str(copied_base))


@pytest.mark.parametrize("model", ["/no/such/folder", "./no/such", "a\x00b", "x" * 5000, ""])
def test_what_can_be_no_model_is_out_of_reach(model: str) -> None:
    assert find_fingerprint(model) is None
    with pytest.raises(InvalidBase, match="neither a folder nor an id"):
        fingerprint(model)
