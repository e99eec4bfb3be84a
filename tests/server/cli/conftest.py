"""What the tests of the command line share: a user with an empty home, a small base model, and adapters of it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from loraloom.server.cli import main
from tests.adapters.small_adapters import small_adapter


@dataclass(frozen=True)
class Outcome:
    """What one command did."""

    status: int
    out: str
    err: str


Loraloom = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user who has set nothing; also the working directory."""
    for name in [name for name in os.environ if name.startswith(("LORALOOM_", "XDG_"))]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def loraloom(capsys: pytest.CaptureFixture[str]) -> Loraloom:
    """A callable `loraloom("adapters", "list") -> Outcome` that runs one command."""

    def run(*words: str | Path) -> Outcome:
        capsys.readouterr()
        status = main([str(word) for word in words])
        return Outcome(status, *capsys.readouterr())

    return run


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base model that `small_adapter` makes adapters of, as far as its shapes are concerned."""
    folder = tmp_path / "models/tiny"
    folder.mkdir(parents=True)
    weight = np.zeros((8, 8), np.float32)
    save_file({"model.layers.0.self_attn.q_proj.weight": weight}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def adapters(tmp_path: Path) -> list[Path]:
    """Three adapters that are not published yet."""
    return [small_adapter(tmp_path / f"given/{seed}", seed) for seed in range(3)]
