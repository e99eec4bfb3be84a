"""vLLM's two forms of an entry, as vLLM itself reads them, and files of them."""

import argparse
import json
from pathlib import Path

import pytest

from loraloom.server.cli.lora_modules import LoraModule, entries, parse_entry
from loraloom.server.errors import InvalidSettings

GOOD = [
    "sql=/path/a",
    "org/sql=/path/with=sign",
    '{"name": "x", "path": "/path", "base_model_name": "m"}',
    '{"name": "x", "path": "/path, with comma"}',
    '{"name":"x","path":"/a=b","is_3d_lora_weight":false}',
]
BAD = [
    "sql",
    "",
    "sql=/a,b",
    "[1]",
    "{",
    '{"name": "x"}',
    '{"name": "x", "path": "y", "rank": 3}',
    '{"a": "b=c", "d": 1}',
]


@pytest.mark.parametrize("entry", GOOD)
def test_an_entry_means_what_it_means_to_vllm(entry: str) -> None:
    cli_args = pytest.importorskip("vllm.entrypoints.launchers.cli_args", reason="this vLLM has its parser elsewhere")
    parser = argparse.ArgumentParser()
    parser.add_argument("--lora-modules", nargs="*", action=cli_args.LoRAParserAction)
    (theirs,) = parser.parse_args(["--lora-modules", entry]).lora_modules
    assert parse_entry(entry) == LoraModule(theirs.name, theirs.path, theirs.base_model_name)


@pytest.mark.parametrize("entry", BAD)
def test_what_is_no_entry(entry: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        parse_entry(entry)
    assert repr(entry) in str(caught.value)


@pytest.mark.parametrize("field", ["name", "path", "base_model_name"])
def test_fields_are_texts(field: str) -> None:
    with pytest.raises(InvalidSettings, match="are texts"):
        parse_entry(json.dumps({"name": "x", "path": "y", field: 3}))


def test_files_of_entries(tmp_path: Path) -> None:
    lines, listed = tmp_path / "lines", tmp_path / "list.json"
    lines.write_text('# mine\nsql=/a\n\n  {"name": "x", "path": "/p"}  \n')
    listed.write_text(json.dumps([{"name": "y", "path": "/ü"}, "z=/z"], indent=1))
    found = [parse_entry(entry) for entry in entries(["first=/1", f"@{lines}", f"@{listed}", "last=/2"])]
    assert found == [
        LoraModule("first", "/1"),
        LoraModule("sql", "/a"),
        LoraModule("x", "/p"),
        LoraModule("y", "/ü"),
        LoraModule("z", "/z"),
        LoraModule("last", "/2"),
    ]


def test_a_file_that_is_not_there_or_broken(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(entries([f"@{tmp_path}/none"]))
    (tmp_path / "broken").write_text("[1,")
    with pytest.raises(InvalidSettings, match="JSON list"):
        list(entries([f"@{tmp_path}/broken"]))
