"""One engine for all end-to-end tests of a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.demo.catalog import demo_adapters
from tests.e2e.collector import collecting
from tests.e2e.serving import BASE, CPU_TIER, MIXTURE_CACHE, ORIGIN, SEQUENCES, SLOTS, Server, serving
from tests.e2e.tenants import Tenants, serving_tenants

VLLM = (
    *("--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", str(SEQUENCES)),
    *("--enable-chunked-prefill", "--max-num-batched-tokens", "64", "--enable-prefix-caching"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    *("--allowed-origins", f'["{ORIGIN}"]'),
)
"""Small steps and a cache, so that requests of different adapters meet in every step."""


@pytest.fixture(scope="session")
def filled_store(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with every demo adapter."""
    folder = tmp_path_factory.mktemp("store")
    store = Store.open(folder)
    base = fingerprint(demo_model)
    for adapter in demo_adapters():
        store.publish(adapter.folder, adapter.name, base=base, base_name=BASE)
    return folder


@pytest.fixture(scope="session")
def server(demo_model: Path, filled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with four slots, room for six adapters in memory, and every demo adapter in its store."""
    arguments = ("--max-loras", str(SLOTS), "--max-cpu-loras", str(CPU_TIER), "--queue-timeout", "120")
    arguments += ("--mixture-cache-bytes", str(MIXTURE_CACHE))
    folder = tmp_path_factory.mktemp("server")
    with serving(demo_model, filled_store, folder, arguments, VLLM) as running:
        yield running


@pytest.fixture(scope="session")
def tenants(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    """A server with keys, for the tests in `LAST`; the last of them ends it."""
    with collecting() as spans, serving_tenants(demo_model, tmp_path_factory.mktemp("tenants"), spans) as running:
        yield running


LAST = ("test_observing.py", "test_tenants.py", "test_turns.py", "test_restart.py")
"""These in this order, after all others: the third ends the server of the first three, and the fourth kills another."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """End the engines last: the other tests of the session share them."""
    ours = {Path(__file__).parent / name: number for number, name in enumerate(LAST)}
    items.sort(key=lambda item: ours.get(item.path, -1))
