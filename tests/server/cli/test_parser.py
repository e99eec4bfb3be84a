"""The arguments of every command."""

import importlib
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from loraloom.server.cli.parser import SETTINGS, parse
from loraloom.server.settings import Settings

COMMANDS = [
    "serve m",
    "demo",
    "doctor",
    "adapters add folder --name sql",
    "adapters list",
    "adapters show sql",
    "adapters verify",
    "adapters tag sql stable 1",
    "adapters rollback sql stable",
    "adapters remove sql@1",
    "adapters gc --dry-run",
    "adapters export sql@1 folder",
    "adapters import sql=folder @file",
    "adapters mix 0.6*sql+0.4*date --name both",
    "adapters pin sql",
    "adapters unpin sql@stable",
    "compose init",
    "compose run job.yaml --check",
    "compose demo",
    "compose list",
    "compose show 1",
    "compose report 1",
    "compose resume 1",
    "compose cancel 1",
    "proxy check large small --expert tuned",
    "proxy eval spec.yaml --check",
]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_has_its_function(line: str) -> None:
    command = parse(line.split())
    assert callable(getattr(importlib.import_module(f"loraloom.server.cli.{command.module}"), command.function))
    assert command.options.config is None


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_takes_the_store_and_the_file(line: str) -> None:
    options = parse([*line.split(), "--adapters", "s3://bucket", "--config", "c.yaml"]).options
    assert (options.adapters, options.config) == ("s3://bucket", Path("c.yaml"))


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_explains_itself(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = line.split()
    with pytest.raises(SystemExit) as caught:
        parse([*words[: 2 if words[0] in ("adapters", "compose", "proxy") else 1], "--help"])
    assert caught.value.code == 0
    assert "--adapters STORE" in capsys.readouterr().out


def test_flags_are_settings() -> None:
    names = {flag.removeprefix("--").replace("-", "_") for flag in SETTINGS}
    assert names < set(Settings.model_fields)
    options = parse(["serve", *(word for flag in SETTINGS for word in (flag, "9"))]).options
    assert {name: str(getattr(options, name)) for name in names} == {
        name: "9.0" if name.endswith(("timeout", "alpha")) else "9" for name in names
    }


def test_the_defaults_in_the_help_are_the_settings() -> None:
    told = {flag: re.search(r"\[(.+)\]$", help) for flag, (_, _, help) in SETTINGS.items() if flag != "--max-lora-rank"}
    for flag, default in told.items():
        if default is not None:
            field = Settings.model_fields[flag.removeprefix("--").replace("-", "_")]
            assert SETTINGS[flag][0](default[1]) == field.default


def test_what_follows_the_dashes_is_for_vllm() -> None:
    command = parse(["serve", "m", "--port", "1", "--", "--dtype", "float32", "--", "x"])
    assert (command.options.port, command.extra) == (1, ("--dtype", "float32", "--", "x"))
    assert parse(["serve", "m", "--"]).extra == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("adapters", "the following arguments are required: COMMAND"),
        ("server m", "invalid choice: 'server'"),
        ("serve m --port web", "argument --port: invalid int value: 'web'"),
        ("serve m --dtype float32", "unrecognized arguments: --dtype float32"),
        ("adapters add folder", "the following arguments are required: --name"),
        ("adapters import", "the following arguments are required: ENTRY"),
        ("adapters add f --name a --rank 4 --energy 0.9", "argument --energy: not allowed with argument --rank"),
        ("adapters tag sql stable", "the following arguments are required: VERSION"),
        ("doctor -- --dtype float32", "only `serve` takes arguments for vLLM after `--`, not --dtype"),
    ],
)
def test_arguments_that_do_not_fit(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(line.split())
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"loraloom {version('loraloom')}\n"
