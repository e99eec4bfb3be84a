"""What the tests of the server share: a store of tiny adapters, an engine without a model, and a gate before it."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.store import Store
from loraloom.adapters.store.blobs import LocalBlobs
from loraloom.adapters.store.disk import Disk
from loraloom.adapters.store.objects import LocalObjects
from loraloom.adapters.store.records import VersionRecord
from loraloom.server import offline
from loraloom.server.base import ServedBase, ServedPair
from loraloom.server.gate.assembly import EngineLimits, assemble
from loraloom.server.gate.gate import Gate
from loraloom.server.offline import Offline
from loraloom.server.settings import Settings
from tests.adapters.small_adapters import small_adapter
from tests.server.fakes import FakeEngine

Publish = Callable[..., VersionRecord]
BuildGate = Callable[..., Gate]

SERVED = BaseFingerprint({"model.layers.0.self_attn.q_proj": (8, 8)}, tokenizer="0" * 64)
"""The base that `small_adapter` makes adapters of."""

SMALL = BaseFingerprint({"model.layers.0.self_attn.q_proj": (4, 4)}, tokenizer=SERVED.tokenizer)
"""A smaller base, of the adapters that `small_adapter` makes with a width of 4."""

BASE = "tiny"
SMALL_BASE = "tinier"
CAPACITY = 3
MAX_RANK = 16


class UnsyncedDisk(Disk):
    """A disk that does not wait until what it has written would survive a loss of power."""

    def fsync(self, path: Path) -> None:
        """Nothing to wait for."""

    def fsync_folder(self, path: Path) -> None:
        """Nothing to wait for."""


def limits_of(engine: FakeEngine) -> EngineLimits:
    """What the fake engine can do: so many at a time that only tests of the queue wait in it."""
    return EngineLimits(sequences=64, slots=64, capacity=engine.capacity, rank=MAX_RANK)


AnyStore = TypeVar("AnyStore", bound=Store)


def empty_store(root: Path, kind: type[AnyStore]) -> AnyStore:
    """A new store in a folder, in tests where durability is not the question."""
    objects = LocalObjects(root, UnsyncedDisk())
    root.mkdir()
    return kind(objects, LocalBlobs(objects))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store in a folder."""
    return empty_store(tmp_path / "store", Store)


@pytest.fixture
def publish(store: Store, tmp_path: Path) -> Publish:
    """A callable `publish(name, seed=…, rank=…, base=…) -> VersionRecord`; without a seed each is a new adapter."""
    made = iter(range(1000))

    def add(
        name: str,
        *,
        seed: int | None = None,
        rank: int = 2,
        width: int = 8,
        base: BaseFingerprint | None = SERVED,
        base_name: str = BASE,
        **more: Any,
    ) -> VersionRecord:
        number = next(made)
        seed = number if seed is None else seed
        folder = small_adapter(tmp_path / f"made-{number}", seed=seed, rank=rank, width=width)
        return store.publish(folder, name, base=base, base_name=None if base is None else base_name, **more).version

    return add


@pytest.fixture
def publish_small(publish: Publish) -> Publish:
    """As `publish`, for adapters of the small model of a pair."""
    return partial(publish, width=4, base=SMALL, base_name=SMALL_BASE)


@pytest.fixture
def served_base(store: Store) -> ServedBase:
    return ServedBase(BASE, SERVED, store)


@pytest.fixture
def served_pair(store: Store) -> ServedPair:
    """The base, and a small model whose adapters steer it."""
    large = ServedBase(BASE, SERVED, store, f"/models/{BASE}")
    return ServedPair(large, ServedBase(SMALL_BASE, SMALL, store, f"/models/{SMALL_BASE}"), store)


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """An engine with room for three adapters; whatever leads it astray fails the test at its end."""
    fake = FakeEngine(CAPACITY)
    yield fake
    assert fake.faults == []


@pytest.fixture
def build_gate(store: Store, served_base: ServedBase, engine: FakeEngine, tmp_path: Path) -> BuildGate:
    """A callable `build_gate(base=served_base, **settings) -> Gate` over the store and the engine."""

    def build(base: ServedBase = served_base, **settings: Any) -> Gate:
        values = Settings(
            **{"model": BASE, "adapters": store.url, "cache": tmp_path / "cache", "insecure": True, **settings}
        )
        names = [BASE, "tiny-alias"]
        return assemble(values, store, engine, base, names, limits_of(engine))

    return build


@pytest.fixture
def gate(build_gate: BuildGate) -> Gate:
    return build_gate()


@pytest.fixture
def pair_gate(build_gate: BuildGate, served_pair: ServedPair) -> Gate:
    """A gate of a proxy-tuned server."""
    return build_gate(served_pair, proxy_small=served_pair.small.model)


@pytest.fixture
def offline_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversion and mixing by the same words, in this process, which has loaded what they take; it stays where it is.

    That a process of its own does as much is shown by tests that do without this.
    """

    def run(_: Offline, command: Sequence[str]) -> str:
        printed: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(offline, "_compute_aside", lambda: None)
            patch.setattr(offline, "print", printed.append, raising=False)
            offline.main(command[3:])
        return "\n".join(printed)

    monkeypatch.setattr(Offline, "_run", run)
