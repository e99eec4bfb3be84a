"""Conversion in a process of its own, with a tiny model and adapters that peft made."""

import json
from pathlib import Path

import pytest

from loraloom.adapters.convert.options import Options
from loraloom.adapters.errors import InvalidAdapter, InvalidBase, UnsupportedAdapter
from loraloom.adapters.manifest import read_manifest
from loraloom.server.conversion import Converter
from loraloom.server.errors import ConversionFailed
from tests.adapters.conftest import MakeAdapter, biased_base, make_adapter, tiny_base  # noqa: F401 (fixtures)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


# ruff: noqa: F811 (fixtures are arguments of the same name)


def test_an_adapter_of_another_kind_becomes_plain_lora(make_adapter: MakeAdapter, tiny_base: Path, out: Path) -> None:
    folder = make_adapter(use_dora=True)
    made = Converter(str(tiny_base)).convert(folder, out, Options(rank=32, max_kl=1.0))
    assert (made.kind, made.rank, made.exact) == ("DoRA", read_manifest(out).rank, made.relative_error <= 1e-5)
    assert made.kl is not None
    assert made.kl < 1e-4


def test_what_is_refused_is_refused_with_the_same_reason(
    make_adapter: MakeAdapter, tiny_base: Path, biased_base: Path, out: Path, tmp_path: Path
) -> None:
    folder = make_adapter(use_dora=True, target_modules=["q_proj", "v_proj", "o_proj", "down_proj"])
    with pytest.raises(UnsupportedAdapter, match="more than .*: give a larger rank"):
        Converter(str(tiny_base)).convert(folder, out, Options(rank=1, max_kl=0.0))
    plain = make_adapter("plain")
    with pytest.raises(UnsupportedAdapter, match="plain LoRA"):
        Converter(str(tiny_base)).convert(plain, out, Options())
    with pytest.raises(InvalidBase):
        Converter(str(tmp_path)).convert(folder, out, Options())


def test_a_process_that_dies(make_adapter: MakeAdapter, tiny_base: Path, tmp_path: Path) -> None:
    """As when memory runs out: nobody can write to what is no folder."""
    folder = make_adapter(use_dora=True)
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(ConversionFailed, match="convert it on another machine with `loraloom adapters add`"):
        Converter(str(tiny_base)).convert(folder, file, Options(max_kl=1.0))


def test_an_adapter_of_another_base(make_adapter: MakeAdapter, tiny_base: Path, out: Path) -> None:
    folder = make_adapter(use_dora=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["unknown_proj"]}))
    with pytest.raises(InvalidAdapter, match="Does the adapter belong to it"):
        Converter(str(tiny_base)).convert(folder, out, Options())
