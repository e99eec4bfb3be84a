"""One engine for all end-to-end tests of a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.demo.catalog import demo_adapters
from tests.e2e.serving import BASE, CPU_TIER, MIXTURE_CACHE, ORIGIN, SLOTS, Server, serving

VLLM = (
    *("--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "16"),
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Kill the engine last: the other tests of the session share it."""
    items.sort(key=lambda item: item.path.name == "test_restart.py")
