"""The command line as a whole: exit statuses, and what it imports."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.cli.conftest import Loraloom

HEAVY = {"torch", "vllm", "transformers", "peft", "openai", "huggingface_hub", "fsspec", "s3fs", "numpy", "fastapi"}
COMMAND = [sys.executable, "-m", "loraloom.server.cli"]


def imported(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has imported after this code."""
    tell = "import sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    run = subprocess.run([sys.executable, "-c", f"{code}\n{tell}"], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


def after(*words: str | Path) -> set[str]:
    """What one command imports, beyond what every interpreter here does."""
    arguments = [str(word) for word in words]
    code = f"from loraloom.server.cli import main\ntry: main({arguments!r})\nexcept SystemExit: pass"
    return imported(code) - imported("import loraloom.server") - sys.stdlib_module_names


def test_help_needs_the_standard_library_only() -> None:
    assert after("--help") == set()
    assert after("adapters", "add", "--help") == set()


def test_looking_at_a_store_imports_nothing_heavy(loraloom: Loraloom, adapters: list[Path], base: Path) -> None:
    assert loraloom("adapters", "add", adapters[0], "--name", "sql", "--base", base).status == 0
    assert not after("adapters", "list") & HEAVY
    assert not after("adapters", "show", "sql") & HEAVY
    assert not after("adapters", "tag", "sql", "stable", "1") & HEAVY
    assert not after("adapters", "remove", "sql") & HEAVY


def test_a_refusal_is_one_line_and_status_1(loraloom: Loraloom) -> None:
    outcome = loraloom("adapters", "show", "a b")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith("loraloom: ")
    assert outcome.err.count("\n") == 1


def test_an_error_of_the_system_is_told_like_any_other(loraloom: Loraloom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALOOM_CACHE", "/dev/null/cache")
    outcome = loraloom("serve", "tiny")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == "loraloom: [Errno 20] Not a directory: '/dev/null/cache'\n"


def test_arguments_that_do_not_fit_are_status_2(loraloom: Loraloom) -> None:
    with pytest.raises(SystemExit) as caught:
        loraloom("adapters", "tag", "sql", "stable", "first")
    assert caught.value.code == 2


def test_output_that_nobody_reads() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nowhere:
        command = [*COMMAND, "serve", "tiny", "--print-config"]
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        run = subprocess.run(command, stdout=nowhere, stderr=subprocess.PIPE, check=False, env=buffered)
    assert (run.returncode, run.stderr) == (141, b"")


def test_an_interrupt_is_status_130() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        source = f"http://127.0.0.1:{silent.getsockname()[1]}/adapter"
        command = [*COMMAND, "adapters", "add", source, "--name", "sql"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=heed_interrupts)
        connection, _ = silent.accept()
        with connection, process:
            try:
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=60)
            finally:
                process.kill()
    assert (process.returncode, err) == (130, b"")


def heed_interrupts() -> None:
    """Undo what a shell does to a test-suite in its background, whose children would ignore Ctrl-C too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
