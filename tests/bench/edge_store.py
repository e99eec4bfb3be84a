"""Stores with many names, for benchmarks of what looks things up in them."""

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.store import Store
from tests.adapters.small_adapters import small_adapter

BASE = BaseFingerprint({"model.layers.0.self_attn.q_proj": (8, 8)}, tokenizer=None)
"""The base model that the small adapters fit."""
USED = 8
"""Names with three versions and a tag, to which most of the measured requests go."""
TAG = "stable"
_CONTENTS = 3
_WRITERS = 16
"""Most of a publication is waiting for the disk."""


def names(count: int) -> list[str]:
    """The names in a store of that size."""
    return [f"team-{number % 100:02}/adapter-{number:05}" for number in range(count)]


def used_names(count: int) -> list[str]:
    """Those with three versions and a tag, spread over all."""
    return names(count)[:: max(1, count // USED)][:USED]


def filled(folder: Path, count: int) -> Store:
    """A store of `count` names in `folder`; what is there already stays, so the next call takes a moment.

    A few small adapters are published under all those names: each publication is the store's own, with a stage, a
    normal form, a digest and every fsync. Names and records are what a look-up meets, and those are as many as of
    different adapters.
    """
    store = Store.open(folder)
    missing = sorted(set(names(count)) - set(store.names()))
    with tempfile.TemporaryDirectory() as scratch:
        adapters = [small_adapter(Path(scratch, str(seed)), seed) for seed in range(_CONTENTS)]
        _publish(store, adapters, missing)
        for name in (name for name in used_names(count) if TAG not in store.tags(name)):
            for adapter in adapters:
                store.publish(adapter, name, base=BASE)
            store.tag(name, TAG, 2)
    return Store.open(folder)


def _publish(store: Store, adapters: Sequence[Path], missing: Sequence[str]) -> None:
    """Publish one version under every name."""
    if len(missing) > 100:
        print(f"publishing {len(missing):,} names, once: a minute or two", flush=True)
    began = time.monotonic()
    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(lambda name: store.publish(adapters[0], name, base=BASE), missing))
    if len(missing) > 100:
        print(f"published in {time.monotonic() - began:.0f} s", flush=True)
