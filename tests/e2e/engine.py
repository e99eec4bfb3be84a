"""The engine that most end-to-end tests share; it starts beside the first of all tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.demo.catalog import demo_adapters
from tests.e2e.serving import BASE, CPU_TIER, MIXTURE_CACHE, ORIGIN, SEQUENCES, SLOTS, Server, starting

VLLM = (
    *("--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", str(SEQUENCES)),
    *("--enable-chunked-prefill", "--max-num-batched-tokens", "64", "--enable-prefix-caching"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    *("--allowed-origins", f'["{ORIGIN}"]'),
)
"""Small steps and a cache, so that requests of different adapters meet in every step."""


@pytest.fixture(scope="session", autouse=True)
def early(request: pytest.FixtureRequest) -> None:
    """Start the engine at once where any of the tests wants it: starting keeps one processor busy for a minute."""
    wanted = any("starting_server" in getattr(test, "fixturenames", ()) for test in request.session.items)
    if wanted and not hasattr(request.config, "workerinput"):  # of several processes one has all that needs an engine
        request.getfixturevalue("starting_server")


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
def starting_server(
    demo_model: Path, filled_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Server]]:
    """A server with four slots, room for six adapters in memory, and every demo adapter in its store."""
    arguments = ("--max-loras", str(SLOTS), "--max-cpu-loras", str(CPU_TIER), "--queue-timeout", "120")
    arguments += ("--mixture-cache-bytes", str(MIXTURE_CACHE))
    with starting(demo_model, filled_store, tmp_path_factory.mktemp("server"), arguments, VLLM) as ready:
        yield ready


@pytest.fixture(scope="session")
def server(starting_server: Callable[[], Server]) -> Server:
    """The same, when it is ready."""
    return starting_server()
