import os
from pathlib import Path

import pytest

from loraloom.server.kernels import build as module
from loraloom.server.kernels.build import CannotBuild, build, library
from loraloom.server.kernels.native import SUFFIXES
from loraloom.server.machine import processor_flags

FLAGS = processor_flags()
FUNCTIONS = ("add", "take")


def test_it_is_compiled_once(library: Path) -> None:
    cache, built = library.parents[1], library.stat()
    assert build(cache, FLAGS) == library
    assert library.stat() == built
    assert [path.name for path in library.parent.iterdir()] == [library.name]


def test_another_processor_or_source_gets_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = library(tmp_path, ["avx2", "fma"])
    assert one == library(tmp_path, ["fma", "avx2"])
    assert one != library(tmp_path, ["avx2"])
    changed = tmp_path / "lora.c"
    changed.write_text("int x;")
    monkeypatch.setattr(module, "SOURCE", changed)
    assert one != library(tmp_path, ["avx2", "fma"])


def test_no_compiler_is_told_with_the_way_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotBuild, match="apt install gcc"):
        build(tmp_path / "cache", FLAGS)


def fake_compiler(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = folder / "cc"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_compiler_that_fails_is_told_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_compiler(tmp_path, "echo 'lora.c:1: error: not today' >&2; exit 1", monkeypatch)
    with pytest.raises(CannotBuild, match="error: not today"):
        build(tmp_path / "cache", FLAGS)
    assert list((tmp_path / "cache" / "kernels").iterdir()) == []


def test_a_kernel_that_computes_wrongly_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tmp_path / "lora.c"
    wrong.write_text(
        "".join(f"int lora_{name}_{of}(void) {{ return 0; }}\n" for name in FUNCTIONS for of in SUFFIXES.values())
    )
    monkeypatch.setattr(module, "SOURCE", wrong)
    monkeypatch.setattr(module, "CHOICES", ((),))
    with pytest.raises(CannotBuild, match="wrong sums in torch.float32, torch.bfloat16"):
        build(tmp_path / "cache", FLAGS)


def test_a_flag_that_the_compiler_lacks_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Path
) -> None:
    monkeypatch.setattr(module, "CHOICES", (("-march=nothing-such",), ("-O2",)))
    assert build(tmp_path, FLAGS).is_file()
