"""The arguments of `keys`, `audit` and `usage`."""

import importlib

import pytest

from loraloom.server.cli.parser import parse

COMMANDS = [
    "keys create --name ci",
    "keys update ci",
    "keys list",
    "keys rotate ci",
    "keys revoke ci",
    "audit list",
    "audit verify",
    "audit adopt",
    "usage",
]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_has_its_function(line: str) -> None:
    command = parse(line.split())
    assert callable(getattr(importlib.import_module(f"loraloom.server.cli.{command.module}"), command.function))


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_takes_the_store(line: str) -> None:
    flag = "--store" if line.startswith("keys") else "--adapters"
    assert parse([*line.split(), flag, "s3://bucket"]).options.adapters == "s3://bucket"


def test_what_a_key_is_for_is_not_the_store() -> None:
    options = parse(["keys", "create", "--name", "ci", "--adapters", "public/*", "--store", "s3://bucket"]).options
    assert (options.names, options.adapters, options.role) == ("public/*", "s3://bucket", "infer")


def test_what_an_update_does_not_say_stays() -> None:
    options = parse(["keys", "update", "ci", "--rpm", "10"]).options
    assert (options.rpm, options.role, options.names, options.tpm) == ("10", None, None, None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("keys create", "the following arguments are required: --name"),
        ("keys create --name ci --role root", "argument --role: invalid choice: 'root'"),
        ("keys rotate", "the following arguments are required: NAME"),
        ("audit", "the following arguments are required: COMMAND"),
        ("usage --json --csv", "argument --csv: not allowed with argument --json"),
    ],
)
def test_arguments_that_do_not_fit(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(line.split())
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
