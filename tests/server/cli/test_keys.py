"""`loraloom keys …` on a real store."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loraloom.adapters.store import Store
from loraloom.server.access.access import Quota, Role
from loraloom.server.access.keyring import KeyRing
from loraloom.server.access.patterns import EVERYTHING, Patterns
from loraloom.server.access.table import KeyTable
from loraloom.server.errors import Unauthenticated
from tests.server.cli.conftest import Loraloom

TEAM = ("keys", "create", "--name", "team-a", "--adapters", "team-a/*,public/*")


@pytest.fixture
def store(home: Path) -> Path:
    """Where the commands keep their store when nobody says otherwise."""
    return home / ".local/share/loraloom/store"


def table(store: Path) -> KeyTable:
    return KeyTable(KeyRing(Store.open(store)))


def test_the_secret_is_all_of_the_standard_output_and_what_else_is_said_is_not(loraloom: Loraloom, store: Path) -> None:
    outcome = loraloom(*TEAM)
    assert outcome.status == 0
    assert re.fullmatch(r"ll_[0-9a-z]{12}_[0-9A-Za-z]{43}\n", outcome.out)
    assert "'team-a': infer, adapters team-a/*,public/*, limits none, never expires" in outcome.err
    assert "the first key of this store" in outcome.err
    assert outcome.out.strip() not in outcome.err
    access = table(store).access_of(outcome.out.strip())
    assert (access.key, access.role, access.adapters) == ("team-a", Role.INFER, Patterns(("team-a/*", "public/*")))
    assert "the first key" not in loraloom("keys", "create", "--name", "b", "--adapters", "*").err


def test_everything_that_a_key_can_be_told(loraloom: Loraloom, store: Path) -> None:
    words = "--role publish --publish team-a/* --sources s3://bucket/team-a/,hf://team-a/ --expires 2099-01-02"
    outcome = loraloom(*TEAM, *words.split(), "--rpm", "60", "--tpm", "1000", "--concurrency", "4")
    access = table(store).access_of(outcome.out.strip())
    assert (access.role, access.publish) == (Role.PUBLISH, Patterns(("team-a/*",)))
    assert access.sources == ("s3://bucket/team-a/", "hf://team-a/")
    assert access.quota == Quota(60, 1000, 4)
    assert json.loads(loraloom("keys", "list", "--json").out)[0]["expires"] == "2099-01-02T00:00:00Z"


@pytest.mark.parametrize("role", ["monitor", "admin"])
def test_administrators_and_monitors_need_no_adapters(loraloom: Loraloom, store: Path, role: str) -> None:
    outcome = loraloom("keys", "create", "--name", "ops", "--role", role)
    access = table(store).access_of(outcome.out.strip())
    assert (access.role.word, access.adapters) == (role, EVERYTHING)


def test_a_key_for_the_base_model_alone(loraloom: Loraloom, store: Path) -> None:
    secret = loraloom("keys", "create", "--name", "b", "--adapters", "").out.strip()
    assert table(store).access_of(secret).adapters == Patterns(())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--name x", "say which adapters the key is for"),
        ("--name x/y --adapters *", "cannot be called 'x/y'"),
        ("--name x --adapters a/b/c", "no pattern of adapter names"),
        ("--name x --adapters * --publish a/*", "publishes nothing: add --role publish"),
        ("--name x --adapters * --sources s3://b/", "publishes nothing: add --role publish"),
        ("--name x --adapters * --expires soon", "write a span such as 90d"),
        ("--name x --adapters * --expires 2020-01-01", "over already"),
        ("--name x --adapters * --rpm 0", "rpm must be a whole number from 1"),
        ("--name x --adapters * --tpm many", "is no limit"),
    ],
)
def test_what_does_not_fit_is_told_and_makes_no_key(loraloom: Loraloom, store: Path, words: str, message: str) -> None:
    outcome = loraloom("keys", "create", *words.split())
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert message in outcome.err
    assert not table(store).in_force


def test_the_list(loraloom: Loraloom) -> None:
    secrets = [loraloom(*TEAM, "--role", "publish", "--rpm", "60", "--expires", "2099-01-02").out]
    secrets.append(loraloom("keys", "create", "--name", "prometheus", "--role", "monitor").out)
    secrets.append(loraloom("keys", "rotate", "team-a", "--grace", "1h").out)
    loraloom("keys", "revoke", "prometheus")
    outcome = loraloom("keys", "list")
    head, gone, team = (re.split(r" {2,}", line) for line in outcome.out.splitlines())
    assert head == ["NAME", "ID", "ROLE", "ADAPTERS", "PUBLISH", "LIMITS", "CREATED", "EXPIRES", "STATE"]
    assert (gone[0], *gone[2:6], *gone[7:]) == ("prometheus", "monitor", "*", "-", "none", "never", "revoked")
    names = "team-a/*,public/*"
    assert (team[0], *team[2:6], team[7]) == ("team-a", "publish", names, names, "rpm=60", "2099-01-02T00:00:00Z")
    assert team[1] == secrets[2].split("_")[1]
    assert re.fullmatch(r"valid, the former secret until \S+Z", team[8])
    shown = outcome.out + loraloom("keys", "list", "--json").out
    assert not any(secret.strip().split("_")[2] in shown for secret in secrets)
    assert "digest" not in shown
    assert "salt" not in shown


def test_rotation_prints_the_new_secret_alone(loraloom: Loraloom, store: Path) -> None:
    first = loraloom(*TEAM).out.strip()
    outcome = loraloom("keys", "rotate", "team-a")
    assert "is not valid any more" in outcome.err
    assert table(store).access_of(outcome.out.strip()).key == "team-a"
    with pytest.raises(Unauthenticated):
        table(store).access_of(first)
    later = loraloom("keys", "rotate", "team-a", "--grace", "1h")
    assert re.search(r"is valid until \S+Z", later.err)
    assert table(store).access_of(outcome.out.strip()).key == "team-a"
    outcome = loraloom("keys", "rotate", "team-a", "--grace", "soon")
    assert (outcome.status, outcome.out) == (1, "")


def test_update_changes_what_it_is_told_and_nothing_else(loraloom: Loraloom, store: Path) -> None:
    secret = loraloom(*TEAM, "--rpm", "60", "--expires", "1h").out.strip()
    outcome = loraloom("keys", "update", "team-a", "--tpm", "9", "--rpm", "none", "--expires", "never")
    assert "is now: infer, adapters team-a/*,public/*, limits tpm=9, never expires" in outcome.out
    access = table(store).access_of(secret)
    assert (access.role, access.quota) == (Role.INFER, Quota(tpm=9))
    loraloom("keys", "update", "team-a", "--role", "publish", "--publish", "team-a/*", "--sources", "s3://b/")
    assert table(store).access_of(secret).publish == Patterns(("team-a/*",))
    loraloom("keys", "update", "team-a", "--sources", "all")
    assert table(store).access_of(secret).sources is None
    outcome = loraloom("keys", "update", "team-a")
    assert (outcome.status, "say what to change" in outcome.err) == (1, True)


def test_a_revoked_key_opens_nothing(loraloom: Loraloom, store: Path) -> None:
    secret = loraloom(*TEAM).out.strip()
    assert loraloom("keys", "revoke", "team-a").out == "the key 'team-a' is revoked\n"
    with pytest.raises(Unauthenticated):
        table(store).access_of(secret)
    outcome = loraloom("keys", "revoke", "team-a")
    assert (outcome.status, outcome.out) == (1, "")


def test_the_store_has_a_flag_of_its_own(loraloom: Loraloom, store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert loraloom(*TEAM, "--store", other).status == 0
    assert loraloom("keys", "update", "team-a", "--rpm", "5", "--store", other).status == 0
    for flag in ("--store", "--adapters"):
        assert "rpm=5" in loraloom("keys", "list", flag, other).out
    assert loraloom("keys", "list").status == 1
    assert not store.exists()


def test_keys_need_nothing_heavy() -> None:
    code = (
        "import sys; from loraloom.server.cli import main\n"
        "main(['keys', 'create', '--name', 'k', '--adapters', '*']); main(['keys', 'list'])\n"
        "sys.exit(bool({'torch', 'vllm', 'transformers', 'numpy', 'fastapi', 'fsspec'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
