"""`loraloom adapters …` on a real store."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loraloom.adapters.store import Store
from tests.adapters.small_adapters import small_adapter
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


def test_adding(loraloom: Loraloom, adapters: list[Path], base: Path, store: Path) -> None:
    outcome = loraloom("adapters", "add", adapters[0], "--name", "sql", "--base", base)
    (record,) = Store.open(store).versions("sql")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == f"added sql@1  sha256:{record.digest[:12]}\n"
    assert (record.base_name, record.provenance) == (str(base), {"source": str(adapters[0])})
    assert record.base is not None
    assert record.by


def test_adding_the_same_again(loraloom: Loraloom, adapters: list[Path], base: Path) -> None:
    words = ("adapters", "add", adapters[0], "--name", "sql", "--base", base)
    first = loraloom(*words)
    again = loraloom(*words)
    assert (again.status, again.out) == (0, first.out.replace("added", "there already:"))


def test_adding_for_a_base_that_is_out_of_reach(adapters: list[Path], store: Path) -> None:
    """In a process of its own, which is offline: huggingface_hub reads that variable when it is imported."""
    command = [sys.executable, "-m", "loraloom.server.cli", "adapters", "add", str(adapters[0]), "--name", "sql"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert run.stderr == "its base tiny was not found: it will be checked at its first use\n"
    (record,) = Store.open(store).versions("sql")
    assert (record.base, record.base_name) == (None, "tiny")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}/missing", "--name", "sql"], "missing"),
        (["{given}", "--name", "s q l"], "'s q l' is not a valid selection"),
        (["{given}", "--name", "sql", "--tag", "1"], "a tag has more than digits"),
        (["{given}", "--name", "sql", "--base", "{tmp}/missing"], "there is no base model '{tmp}/missing'"),
        (["{given}", "--name", "sql", "--base", "{other}"], "1 of 1 modules have another shape"),
        (["{noop}", "--name", "sql", "--base", "{base}"], "the adapter changes nothing"),
    ],
)
def test_what_is_refused(
    loraloom: Loraloom, adapters: list[Path], base: Path, store: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    places = {
        "tmp": tmp_path,
        "given": adapters[0],
        "base": base,
        "other": another_base(tmp_path / "models/other"),
        "noop": small_adapter(tmp_path / "noop", scale=0),
    }
    outcome = loraloom("adapters", "add", *(word.format(**places) for word in words))
    assert (outcome.status, outcome.out) == (1, "")
    assert message.format(**places) in outcome.err
    assert not store.exists() or Store.open(store).names() == []


def another_base(folder: Path) -> Path:
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir()
    save_file({"model.layers.0.self_attn.q_proj.weight": np.zeros((4, 4), np.float32)}, folder / "model.safetensors")
    return folder


def test_adding_what_changes_nothing(loraloom: Loraloom, base: Path, tmp_path: Path) -> None:
    noop = small_adapter(tmp_path / "noop", scale=0)
    assert loraloom("adapters", "add", noop, "--name", "sql", "--base", base, "--allow-noop").status == 0


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


def test_adding_again_repairs(loraloom: Loraloom, two_versions: list[Path], base: Path, store: Path) -> None:
    record = Store.open(store).versions("sql")[0]
    (store / "blobs" / record.digest / "adapter_model.safetensors").unlink()
    assert loraloom("adapters", "verify").status == 1
    loraloom("adapters", "add", two_versions[0], "--name", "sql", "--base", base)
    assert loraloom("adapters", "verify").status == 0
