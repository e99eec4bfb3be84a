"""What is told of a damaged adapter: never more than the client sees, and never a version that is damaged too."""

from pathlib import Path

import pytest

from loraloom.adapters.errors import AdapterNotFound, BaseMismatch, DamagedBlob
from loraloom.adapters.manifest import WEIGHTS_FILE
from loraloom.adapters.mixtures.recipe import Recipe, settled
from loraloom.adapters.names import Adapter, Mixture, parse
from loraloom.adapters.store import Store
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.access.access import ANYONE
from loraloom.server.access.view import View
from loraloom.server.gate.blobs import VerifiedBlobs
from loraloom.server.gate.damage import Damage
from loraloom.server.gate.exchange import Choice
from tests.server.conftest import Publish


class Serves:
    """Serves all versions but those of some numbers."""

    def __init__(self, not_served: tuple[int, ...] = ()) -> None:
        self.not_served = not_served

    def resolve(self, adapter: Adapter, view: View) -> VersionRecord:
        if adapter.version in self.not_served:
            raise BaseMismatch("of another base")
        return view.resolve(adapter)


@pytest.fixture
def blobs(store: Store) -> VerifiedBlobs:
    return VerifiedBlobs(store)


@pytest.fixture
def versions(publish: Publish) -> list[VersionRecord]:
    """Four of `sql`; "latest" stands at the last."""
    return [publish("sql") for _ in range(4)]


def harm(store: Store, record: VersionRecord) -> None:
    weights = store.folder(record.digest) / WEIGHTS_FILE
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1])


def told(store: Store, blobs: VerifiedBlobs, choice: Choice, digest: str, serves: Serves | None = None) -> str:
    damage = Damage(blobs, serves or Serves())
    error = DamagedBlob(digest, "flipped bits")
    return str(damage.explained(error, choice, View(store, lambda: ANYONE)))


def alone(record: VersionRecord) -> Choice:
    return Choice(record.canonical, record.digest)


def test_the_version_before(store: Store, blobs: VerifiedBlobs, versions: list[VersionRecord]) -> None:
    last = versions[-1]
    assert told(store, blobs, alone(last), last.digest) == (
        f"the stored adapter 'sql@4' (sha256:{last.digest[:12]}) is damaged: flipped bits. Ask for 'sql@3', the newest "
        "earlier version that is whole, or let 'latest' stand there (`loraloom adapters tag sql latest 3`). Add it "
        "again to repair it."
    )


def test_what_no_tag_stands_at(store: Store, blobs: VerifiedBlobs, versions: list[VersionRecord]) -> None:
    message = told(store, blobs, alone(versions[2]), versions[2].digest)
    assert "Ask for 'sql@2', the newest earlier version that is whole. Add" in message


def test_one_that_is_damaged_too_or_not_served_is_not_named(
    store: Store, blobs: VerifiedBlobs, versions: list[VersionRecord]
) -> None:
    harm(store, versions[2])
    last = versions[-1]
    assert "'sql@2'" in told(store, blobs, alone(last), last.digest)
    assert list(blobs.quarantined) == [versions[2].digest]
    assert "'sql@1'" in told(store, blobs, alone(last), last.digest, Serves(not_served=(2,)))


def test_one_with_the_same_bytes_is_no_help(store: Store, blobs: VerifiedBlobs, publish: Publish) -> None:
    publish("sql", seed=7)
    store.remove("sql", 1)
    last = publish("sql", seed=7)
    assert "no earlier version is whole" in told(store, blobs, alone(last), last.digest)


def test_the_first_version(store: Store, blobs: VerifiedBlobs, versions: list[VersionRecord]) -> None:
    first = versions[0]
    assert told(store, blobs, alone(first), first.digest).endswith(
        "is damaged: flipped bits. Add it again to repair it: no earlier version is whole."
    )


def mixture(store: Store, text: str) -> Recipe:
    target = parse(text).target
    assert isinstance(target, Mixture)
    return settled(target, store.resolve)


def test_the_ingredient_of_a_mixture(
    store: Store, blobs: VerifiedBlobs, versions: list[VersionRecord], publish: Publish
) -> None:
    publish("date")
    recipe = mixture(store, "0.5*date+0.5*sql")
    message = told(store, blobs, Choice(recipe.canonical, recipe), versions[-1].digest)
    assert "the stored adapter 'sql@4'" in message
    assert "Ask for 'sql@3'" in message


def test_damage_of_something_else_stays_as_it_was(
    store: Store, blobs: VerifiedBlobs, versions: list[VersionRecord], publish: Publish
) -> None:
    other = publish("date").digest
    recipe = mixture(store, "0.5*sql@1+0.5*sql@2")
    for choice in (alone(versions[0]), Choice(recipe.canonical, recipe)):
        assert told(store, blobs, choice, other) == str(DamagedBlob(other, "flipped bits"))


def test_a_name_that_is_gone_meanwhile(store: Store, blobs: VerifiedBlobs, versions: list[VersionRecord]) -> None:
    store.remove("sql")
    with pytest.raises(AdapterNotFound):
        store.versions("sql")
    assert told(store, blobs, alone(versions[3]), versions[3].digest) == str(
        DamagedBlob(versions[3].digest, "flipped bits")
    )


def test_nothing_stays_in_use(
    store: Store, blobs: VerifiedBlobs, versions: list[VersionRecord], tmp_path: Path
) -> None:
    told(store, blobs, alone(versions[-1]), versions[-1].digest)
    store.remove("sql")
    assert len([each for each in store.collect() if each.path.startswith("blobs/")]) == 4
