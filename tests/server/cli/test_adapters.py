"""`loraloom adapters …` on a real store."""

import json
import os
from pathlib import Path

import pytest

from loraloom.adapters.store import Store
from tests.server.cli.conftest import Loraloom


@pytest.fixture
def store(home: Path) -> Path:
    """Where the commands keep their store when nobody says otherwise."""
    return home / ".local/share/loraloom/store"


@pytest.fixture
def two_versions(loraloom: Loraloom, adapters: list[Path], base: Path) -> list[Path]:
    """`sql` with two versions, "latest" at the second and "stable" at the first."""
    assert loraloom("adapters", "add", adapters[0], "--name", "sql", "--tag", "stable", "--base", base).status == 0
    assert loraloom("adapters", "add", adapters[1], "--name", "sql", "--base", base).status == 0
    return adapters


def test_the_list(loraloom: Loraloom, two_versions: list[Path], base: Path) -> None:
    loraloom("adapters", "add", two_versions[2], "--name", "org/date", "--base", base)
    outcome = loraloom("adapters", "list")
    assert outcome.out.splitlines() == [
        "NAME      VERSIONS  TAGS                PINS",
        "org/date  1         latest=1",
        "sql       2         latest=2, stable=1",
    ]
    assert json.loads(loraloom("adapters", "list", "--json").out) == [
        {"name": "org/date", "tags": {"latest": 1}, "pins": []},
        {"name": "sql", "tags": {"latest": 2, "stable": 1}, "pins": []},
    ]


def test_pin_and_unpin(loraloom: Loraloom, two_versions: list[Path], store: Path) -> None:
    outcome = loraloom("adapters", "pin", "sql")
    assert (outcome.status, outcome.out) == (0, "sql is pinned: now sql@2\n")
    assert loraloom("adapters", "pin", "sql@stable").out == "sql@stable is pinned: now sql@1\n"
    assert loraloom("adapters", "pin", "sql").out == "sql was pinned already: now sql@2\n"
    assert [str(adapter) for adapter in Store.open(store).pins()] == ["sql", "sql@stable"]
    assert loraloom("adapters", "list").out.splitlines()[1].endswith("latest=2, stable=1  sql, sql@stable")
    assert json.loads(loraloom("adapters", "list", "--json").out)[0]["pins"] == ["sql", "sql@stable"]
    assert "pinned: sql, sql@stable" in loraloom("adapters", "show", "sql").out.splitlines()
    assert json.loads(loraloom("adapters", "show", "sql", "--json").out)["pins"] == ["sql", "sql@stable"]
    outcome = loraloom("adapters", "unpin", "sql")
    assert (outcome.status, outcome.out) == (0, "sql is not pinned any more\n")
    outcome = loraloom("adapters", "unpin", "sql")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == "loraloom: sql is not pinned; of 'sql', sql@stable is\n"
    assert loraloom("adapters", "unpin", "sql@stable").status == 0
    assert loraloom("adapters", "unpin", "sql").err == "loraloom: sql is not pinned; of 'sql', nothing is\n"
    assert "pinned" not in loraloom("adapters", "show", "sql").out


def test_pinning_what_is_not_there(loraloom: Loraloom, two_versions: list[Path]) -> None:
    for words in (("pin", "sqk"), ("unpin", "sqk")):
        outcome = loraloom("adapters", *words)
        assert (outcome.status, outcome.err) == (1, "loraloom: there is no adapter 'sqk'. Did you mean 'sql'?\n")
    assert loraloom("adapters", "pin", "sql@9").status == 1


def test_the_list_of_no_store(loraloom: Loraloom, store: Path) -> None:
    outcome = loraloom("adapters", "list")
    assert (outcome.status, outcome.out) == (1, "")
    assert str(store) in outcome.err
    assert not store.exists()


def test_another_store(loraloom: Loraloom, adapters: list[Path], base: Path, store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert loraloom("adapters", "add", adapters[0], "--name", "a", "--base", base, "--adapters", other).status == 0
    assert Store.open(other).names() == ["a"]
    assert not store.exists()


def test_showing(loraloom: Loraloom, two_versions: list[Path], store: Path) -> None:
    loraloom("adapters", "tag", "sql", "stable", "2")
    lines = loraloom("adapters", "show", "sql").out.splitlines()
    first, second = Store.open(store).versions("sql")
    assert lines[0].split() == ["VERSION", "DIGEST", "RANK", "BASE", "CREATED", "BY"]
    assert lines[1].split()[:3] == ["1", first.digest[:12], "2"]
    assert lines[2].split()[:3] == ["2", second.digest[:12], "2"]
    assert "stable: 2  (history: 1 -> 2)" in lines
    assert f'sql@1 provenance: {{"source": "{two_versions[0]}"}}' in lines
    shown = json.loads(loraloom("adapters", "show", "sql", "--json").out)
    assert shown["tags"] == {"latest": 2, "stable": 2}
    assert [version["digest"] for version in shown["versions"]] == [first.digest, second.digest]
    assert [version["facts"]["update"]["modules"] for version in shown["versions"]] == [1, 1]


def test_showing_what_was_measured(loraloom: Loraloom, two_versions: list[Path], store: Path) -> None:
    effect = {"max_logprob_change": 1e-6, "mean_logprob_change": 0.0, "tokens": 3, "prompt": "x"}
    opened = Store.open(store)
    first, second = opened.versions("sql")
    opened.note_fact(first.digest, "effect", effect)
    opened.note_fact(second.digest, "effect", {**effect, "max_logprob_change": 2.0})
    lines = loraloom("adapters", "show", "sql").out.splitlines()
    assert any(line.startswith("sql@1 update: 1 modules, rank 2, |dW| ") for line in lines)
    (dull,) = [line for line in lines if line.startswith("sql@1 effect: ")]
    (lively,) = [line for line in lines if line.startswith("sql@2 effect: ")]
    assert ("WARNING" in dull, "WARNING" in lively) == (True, False)
    (version, _) = json.loads(loraloom("adapters", "show", "sql", "--json").out)["versions"]
    assert version["facts"]["effect"] == effect


def test_a_name_that_is_not_there(loraloom: Loraloom, two_versions: list[Path]) -> None:
    for words in (("show", "sqk"), ("tag", "sqk", "stable", "1"), ("rollback", "sqk", "stable"), ("remove", "sqk")):
        outcome = loraloom("adapters", *words)
        assert (outcome.status, outcome.out) == (1, "")
        assert outcome.err == "loraloom: there is no adapter 'sqk'. Did you mean 'sql'?\n"


def test_tag_and_rollback(loraloom: Loraloom, two_versions: list[Path], store: Path) -> None:
    outcome = loraloom("adapters", "tag", "sql", "stable", "2")
    assert (outcome.status, outcome.out) == (0, "sql@stable is now version 2\n")
    assert Store.open(store).tags("sql")["stable"] == 2
    outcome = loraloom("adapters", "rollback", "sql", "stable")
    assert (outcome.status, outcome.out) == (0, "sql@stable is version 1 again\n")
    assert Store.open(store).tags("sql")["stable"] == 1
    outcome = loraloom("adapters", "rollback", "sql", "stable")
    assert (outcome.status, outcome.out) == (1, "")


def test_a_version_that_is_not_there(loraloom: Loraloom, two_versions: list[Path]) -> None:
    outcome = loraloom("adapters", "tag", "sql", "stable", "7")
    assert outcome.status == 1
    assert "adapter 'sql' has no version '7'" in outcome.err


def test_removing_one_version(loraloom: Loraloom, two_versions: list[Path], store: Path) -> None:
    outcome = loraloom("adapters", "remove", "sql@latest")
    assert (outcome.status, outcome.out) == (0, "removed sql@2\nsql@latest is now version 1\n")
    assert [record.number for record in Store.open(store).versions("sql")] == [1]


def test_removing_all(loraloom: Loraloom, two_versions: list[Path], store: Path) -> None:
    outcome = loraloom("adapters", "remove", "sql")
    assert outcome.out.splitlines() == ["removed sql@1, sql@2", "sql@latest is gone", "sql@stable is gone"]
    assert Store.open(store).names() == []


def test_verify(loraloom: Loraloom, two_versions: list[Path], store: Path) -> None:
    whole = loraloom("adapters", "verify")
    assert (whole.status, whole.out) == (0, "0 damaged, 0 left over by killed writers\n")
    record = Store.open(store).versions("sql")[0]
    weights = store / "blobs" / record.digest / "adapter_model.safetensors"
    weights.chmod(0o644)
    os.truncate(weights, 100)
    for words in (("verify",), ("verify", "sql")):
        damaged = loraloom("adapters", *words)
        assert damaged.status == 1
        assert damaged.out.startswith(f"damaged: blobs/{record.digest}: sql@1: ")
        assert damaged.out.endswith("1 damaged, 0 left over by killed writers\n")


def test_verify_tells_of_facts_and_does_not_fail(loraloom: Loraloom, two_versions: list[Path], store: Path) -> None:
    digest = Store.open(store).versions("sql")[0].digest
    (store / "facts" / digest / "effect.json").write_text("{")
    outcome = loraloom("adapters", "verify")
    assert outcome.status == 0
    assert outcome.out.startswith(f"fact: facts/{digest}/effect.json: ")
    assert outcome.out.endswith("0 damaged, 0 left over by killed writers, 1 unreadable facts\n")
    loraloom("adapters", "show", "sql")


def test_collecting_garbage(loraloom: Loraloom, two_versions: list[Path], store: Path) -> None:
    assert loraloom("adapters", "gc").out == "0 removed, 0 bytes\n"
    gone = Store.open(store).versions("sql")[1]
    loraloom("adapters", "remove", "sql@2")
    folders = [f"facts/{gone.digest}", f"blobs/{gone.digest}", f"originals/{gone.original}"]
    sizes = {folder: sum(path.stat().st_size for path in (store / folder).iterdir()) for folder in folders}
    for flags, done, end in ((["--dry-run"], "would remove", "to remove"), ([], "removed", "removed")):
        outcome = loraloom("adapters", "gc", *flags)
        *lines, last = outcome.out.splitlines()
        assert (outcome.status, outcome.err) == (0, "")
        assert set(lines) == {f"{done} {folder}  {size} bytes" for folder, size in sizes.items()}
        assert last == f"3 {end}, {sum(sizes.values())} bytes"
    assert not any((store / folder).exists() for folder in folders)
    assert loraloom("adapters", "verify").out == "0 damaged, 0 left over by killed writers\n"


def test_exporting(loraloom: Loraloom, two_versions: list[Path], store: Path, tmp_path: Path) -> None:
    outcome = loraloom("adapters", "export", "sql@stable", tmp_path / "out")
    assert (outcome.status, outcome.out, outcome.err) == (0, f"wrote sql@1 to {tmp_path}/out\n", "")
    assert loraloom("adapters", "add", tmp_path / "out", "--name", "sql").out.startswith("there already: sql@1 ")
    again = loraloom("adapters", "export", "sql", tmp_path / "out")
    assert (again.status, again.out) == (1, "")
    assert again.err == f"loraloom: {tmp_path}/out is there already, and not an empty folder: name another one\n"
    assert loraloom("adapters", "export", "sql@9", tmp_path / "none").status == 1
    assert not (tmp_path / "none").exists()


def test_adding_again_repairs(loraloom: Loraloom, two_versions: list[Path], base: Path, store: Path) -> None:
    record = Store.open(store).versions("sql")[0]
    (store / "blobs" / record.digest / "adapter_model.safetensors").unlink()
    assert loraloom("adapters", "verify").status == 1
    loraloom("adapters", "add", two_versions[0], "--name", "sql", "--base", base)
    assert loraloom("adapters", "verify").status == 0
