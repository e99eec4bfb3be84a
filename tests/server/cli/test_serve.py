"""`loraloom serve`, up to where the engine begins."""

import dataclasses
import socket
from pathlib import Path

import pytest
import yaml

from loraloom.server.cli.serve import build_kernel, check_engine
from loraloom.server.errors import InvalidSettings
from loraloom.server.settings import Settings
from tests.server.cli.conftest import Loraloom
from tests.server.machine.test_machine import CPU


def test_the_printed_configuration(loraloom: Loraloom, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "loraloom.yaml").write_text("max_loras: 3\n")
    monkeypatch.setenv("LORALOOM_HOST", "::1")
    outcome = loraloom("serve", "tiny", "--port", "9", "--print-config")
    assert outcome.status == 0
    printed = yaml.safe_load(outcome.out)
    assert (printed["model"], printed["port"], printed["host"], printed["max_loras"]) == ("tiny", 9, "::1", 3)
    lines = outcome.out.splitlines()
    assert "port: 9  # flag" in lines
    assert 'host: "::1"  # environment LORALOOM_HOST' in lines
    assert "max_loras: 3  # file loraloom.yaml" in lines


def test_no_model(loraloom: Loraloom) -> None:
    outcome = loraloom("serve", "--port", "0")
    assert outcome.status == 1
    assert "no model: name one, as in `loraloom serve MODEL`" in outcome.err


def test_a_flag_that_loraloom_sets(loraloom: Loraloom) -> None:
    outcome = loraloom("serve", "tiny", "--port", "0", "--", "--port", "1")
    assert outcome.status == 1
    assert outcome.err == "loraloom: --port is set by LoraLoom; use --port before the `--`\n"


def test_a_port_in_use(loraloom: Loraloom) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = loraloom("serve", "tiny", "--port", str(taken.getsockname()[1]))
    assert outcome.status == 1
    assert "(Address already in use): stop what uses the port, or choose another with --port" in outcome.err


def test_a_file_that_is_not_there(loraloom: Loraloom) -> None:
    outcome = loraloom("serve", "tiny", "--config", "missing.yaml")
    assert (outcome.status, "no configuration file missing.yaml" in outcome.err) == (1, True)


def test_no_engine() -> None:
    with pytest.raises(InvalidSettings, match=r"vLLM is not installed: `pip install 'loraloom\[cuda\]'`"):
        check_engine(dataclasses.replace(CPU, vllm=None, distribution=None))


def test_an_engine_of_another_version_is_tried(capsys: pytest.CaptureFixture[str]) -> None:
    check_engine(dataclasses.replace(CPU, vllm="0.40.0"))
    assert "warning: vLLM 0.40.0 is outside of 0.26 to 0.33" in capsys.readouterr().err
    check_engine(CPU)
    assert capsys.readouterr().err == ""


def test_without_a_compiler_it_serves_with_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (note,) = build_kernel(Settings(cache=tmp_path), CPU)
    assert note.startswith("LoRA: computed with torch, which takes longer, because there is no C compiler")


def test_a_kernel_that_nobody_would_use_is_not_compiled(tmp_path: Path) -> None:
    on_gpu = dataclasses.replace(CPU, gpu="NVIDIA L4", distribution="vllm")
    cache = tmp_path / "cache"
    assert list(build_kernel(Settings(cache=cache), on_gpu)) == []
    assert list(build_kernel(Settings(cache=cache, cpu_kernels=False), CPU)) == []
    assert not cache.exists()
