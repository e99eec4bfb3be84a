"""Which libraries are found, and which are added to the user's own."""

import shutil
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from regex import _regex

from loraloom.server.machine import preload as module
from loraloom.server.machine.preload import Libraries, can_be_preloaded, find, missing, preload
from tests.server.machine.test_machine import write

TCMALLOC, IOMP = Path("/usr/lib/libtcmalloc_minimal.so.4"), Path("/venv/lib/libiomp5.so")
BOTH = Libraries(TCMALLOC, IOMP)


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, f"{TCMALLOC}:{IOMP}"),
        ({"LD_PRELOAD": "/opt/libmine.so"}, f"/opt/libmine.so:{TCMALLOC}:{IOMP}"),
        ({"LD_PRELOAD": "/opt/libtcmalloc.so.4"}, f"/opt/libtcmalloc.so.4:{IOMP}"),
        ({"LD_PRELOAD": "/opt/libjemalloc.so.2"}, f"/opt/libjemalloc.so.2:{IOMP}"),
        ({"LD_PRELOAD": "/opt/libmimalloc.so"}, f"/opt/libmimalloc.so:{IOMP}"),
        ({"LD_PRELOAD": "/opt/libgomp.so.1"}, f"/opt/libgomp.so.1:{TCMALLOC}"),
        ({"LD_PRELOAD": "/opt/libomp.so"}, f"/opt/libomp.so:{TCMALLOC}"),
        ({"LD_PRELOAD": "/opt/libiomp5.so /opt/libtcmalloc.so"}, None),
        ({"LD_PRELOAD": ""}, None),
    ],
)
def test_what_is_added_to_the_users_own(environment: Mapping[str, str], wanted: str | None) -> None:
    assert preload(BOTH, environment).get("LD_PRELOAD") == wanted


def test_only_what_is_there_is_added() -> None:
    assert preload(Libraries(openmp=IOMP), {}) == {"LD_PRELOAD": str(IOMP)}
    assert preload(Libraries(), {}) == {}
    assert preload(Libraries(), {"LD_PRELOAD": "/opt/libmine.so"}) == {}


def test_what_is_missing() -> None:
    assert not list(missing(BOTH, "x86_64", {}))
    tcmalloc, iomp = missing(Libraries(), "x86_64", {})
    assert "`apt install libtcmalloc-minimal4`" in tcmalloc
    assert "`pip install intel-openmp`" in iomp
    assert list(missing(Libraries(), "aarch64", {})) == [tcmalloc]
    assert list(missing(Libraries(), "x86_64", {"LD_PRELOAD": "/opt/libjemalloc.so"})) == [iomp]
    assert list(missing(Libraries(), "x86_64", {"LD_PRELOAD": "/opt/libgomp.so"})) == [tcmalloc]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's file system, whose engine lies under `vllm`."""
    spec = ModuleSpec("vllm", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "vllm")]
    monkeypatch.setattr(module, "find_spec", {"vllm": spec}.get)
    return tmp_path


def found(machine: Path, *refused: str) -> tuple[str | None, str | None]:
    libraries = find(machine, machine / "venv", lambda path: str(path.relative_to(machine)) not in refused)
    allocator, openmp = (path and str(path.relative_to(machine)) for path in (libraries.allocator, libraries.openmp))
    return allocator, openmp


def test_a_machine_without_any(machine: Path) -> None:
    write(machine / "usr/lib/libiomp5.so", "not where Python's packages put it")
    assert found(machine) == (None, None)


def test_the_first_that_can_be_loaded(machine: Path) -> None:
    order = [
        "vllm/libs/libtcmalloc_minimal-1a2b.so.4",
        "venv/lib/libtcmalloc_minimal.so.4",
        "usr/local/lib/libtcmalloc_minimal.so.4",
        "usr/lib/aarch64-linux-gnu/libtcmalloc_minimal.so.4",
        "usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",
        "usr/lib64/libtcmalloc_minimal.so.4",
        "usr/lib/libtcmalloc_minimal.so.4",
        "vllm/libs/libtcmalloc.so.4",
        "usr/lib64/libtcmalloc.so.4",
    ]
    for name in (*order, "usr/lib/libtcmalloc_debug.so.4", "venv/lib/libiomp5.so"):
        write(machine / name, "")
    for number, name in enumerate(order):
        assert found(machine, *order[:number]) == (name, "venv/lib/libiomp5.so")
    assert found(machine, *order, "venv/lib/libiomp5.so") == (None, None)


def test_without_an_engine_the_systems_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    write(tmp_path / "usr/lib/libtcmalloc.so.4", "")
    assert found(tmp_path)[0] == "usr/lib/libtcmalloc.so.4"


def test_a_file_that_is_no_library_is_not_preloaded(tmp_path: Path) -> None:
    write(tmp_path / "libiomp5.so", "GROUP ( libomp.so )")
    assert not can_be_preloaded(tmp_path / "libiomp5.so")
    assert find(tmp_path, prefix=tmp_path / "venv").openmp is None


def test_a_library_is_preloaded_where_the_loader_takes_its_path(tmp_path: Path) -> None:
    library = Path(_regex.__file__)
    assert can_be_preloaded(library)
    folder = tmp_path / "with a space"
    folder.mkdir()
    assert not can_be_preloaded(Path(shutil.copy(library, folder)))


def test_what_cannot_be_tried_is_not_preloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/missing/python")
    assert not can_be_preloaded(IOMP)
