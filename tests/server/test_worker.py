"""Reading adapters in a thread of the worker, over managers that keep lists instead of layers."""

import os
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # vLLM's own imports warn of deprecations
    from vllm.lora.model_manager import LRUCacheLoRAModelManager
    from vllm.lora.request import LoRARequest
    from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager
    from vllm.v1.worker.gpu_worker import Worker

    from loraloom.server import worker
    from loraloom.server.worker import AdapterReading, Reader, free_processors, owned

PATIENCE = 60.0
"""Seconds after which a test that waits for something fails."""
CPU = torch.device("cpu")
SQL = LoRARequest("sql@1", 7, "/blobs/1")


class Managers:
    """vLLM's two managers of adapters in one: what is held, what has a slot, and in which thread each thing happens.

    Attributes:
        go: set while reading goes on; clear it to keep an adapter being read.
        refuses: whether no adapter can be read.
    """

    def __init__(self) -> None:
        self._adapter_manager = self
        self.lora_index_to_id: list[int | None] = [None, None]
        self.held: dict[int, Any] = {}
        self.threads: dict[str, int] = {}
        self.reads = 0
        self.begun = threading.Event()
        self.go = threading.Event()
        self.go.set()
        self.refuses = False

    def _load_adapter(self, request: LoRARequest) -> Any:
        self.threads["read"] = threading.get_ident()
        self.reads += 1
        self.begun.set()
        self.go.wait()
        if self.refuses:
            raise ValueError("no such module")
        weights = SimpleNamespace(lora_a=torch.ones(2, 2), lora_b=[torch.ones(2), None])
        return SimpleNamespace(id=request.lora_int_id, loras={"q_proj": weights})

    def _create_merged_loras_inplace(self, adapter: Any) -> None:
        self.threads["merge"] = threading.get_ident()

    def add_adapter(self, adapter: Any) -> bool:
        self.threads["add"] = threading.get_ident()
        self.held[adapter.id] = adapter
        return True

    def remove_adapter(self, identifier: int) -> bool:
        return self.held.pop(identifier, None) is not None

    def list_adapters(self) -> dict[int, Any]:
        return dict(self.held)


@pytest.fixture
def managers() -> Iterator[Managers]:
    made = Managers()
    yield made
    made.go.set()


@pytest.fixture
def reader(managers: Managers) -> Reader:
    return Reader(managers, CPU)


def read(reader: Reader, request: LoRARequest = SQL) -> str:
    """Ask until there is an answer."""
    end = time.monotonic() + PATIENCE
    while (state := reader.read(request)) == "reading" and time.monotonic() < end:
        time.sleep(0.001)
    return state


def test_reading_goes_on_in_a_thread_and_keeping_does_not(reader: Reader, managers: Managers) -> None:
    managers.go.clear()
    assert [reader.read(SQL) for _ in range(3)] == ["reading"] * 3
    assert managers.held == {}
    managers.go.set()
    assert read(reader) == "held"
    assert list(managers.held) == [7]
    assert managers.threads["add"] == threading.get_ident()
    assert managers.threads["read"] == managers.threads["merge"] != threading.get_ident()


def test_an_adapter_is_read_once(reader: Reader, managers: Managers) -> None:
    assert [read(reader) for _ in range(3)] == ["held"] * 3
    assert managers.reads == 1


def test_nothing_gets_a_slot(reader: Reader, managers: Managers) -> None:
    read(reader)
    assert reader.tiers() == ([], [7])
    managers.lora_index_to_id[1] = 7
    assert reader.tiers() == ([7], [7])


def test_a_refused_adapter_leaves_nothing_behind(
    reader: Reader, managers: Managers, caplog: pytest.LogCaptureFixture
) -> None:
    managers.refuses = True
    assert read(reader) == "refused"
    assert "adapter sql@1 cannot be loaded from /blobs/1" in caplog.text
    assert "no such module" in caplog.text
    managers.refuses = False
    assert read(reader) == "held"
    assert managers.reads == 2


def test_dropping(reader: Reader, managers: Managers) -> None:
    read(reader)
    assert reader.drop(7)
    assert managers.held == {}
    assert not reader.drop(7)


def test_dropping_while_it_is_read_or_waits_for_that(reader: Reader, managers: Managers) -> None:
    managers.go.clear()
    date = LoRARequest("date@1", 8, "/blobs/2")
    assert reader.read(SQL) == reader.read(date) == "reading"
    assert managers.begun.wait(PATIENCE)
    assert reader.drop(7)
    assert reader.drop(8)
    managers.go.set()
    assert read(reader, LoRARequest("other@1", 9, "/blobs/3")) == "held"
    assert list(managers.held) == [9]
    assert managers.reads == 2


def test_what_vllm_mixes_in(managers: Managers) -> None:
    """As vLLM does it: the class joins the bases of the worker's class, and its names must not be taken there."""

    class Mixed(AdapterReading):
        device = CPU
        model_runner = SimpleNamespace(lora_manager=managers)

    names = {name for name in dir(AdapterReading) if not name.startswith("__")}
    assert names == {"loraloom_reader", "loraloom_read", "loraloom_drop", "loraloom_tiers"}
    assert not any(hasattr(Worker, name) for name in names)
    mixed = Mixed()
    while mixed.loraloom_read(7, "sql@1", "/blobs/1") == "reading":
        time.sleep(0.001)
    assert mixed.loraloom_tiers() == ([], [7])
    assert mixed.loraloom_drop(7)


def test_vllms_managers_have_what_is_used_of_them() -> None:
    for name in ("_load_adapter", "remove_adapter"):
        assert callable(getattr(LRUCacheWorkerLoRAManager, name))
    for name in ("_create_merged_loras_inplace", "add_adapter", "list_adapters"):
        assert callable(getattr(LRUCacheLoRAModelManager, name))


def test_owned_weights_need_their_file_no_longer(tmp_path: Path) -> None:
    """A file that is cut short under pages that are mapped would end the process."""
    path = tmp_path / "adapter_model.safetensors"
    save_file({"a": torch.arange(10**6)}, path)
    with safe_open(path, framework="pt") as file:
        read = file.get_tensor("a")
    a, none = owned([read, None])
    del read
    os.truncate(path, 100)
    assert none is None
    assert torch.equal(a, torch.arange(10**6))


@pytest.mark.parametrize(
    ("allowed", "threads", "free"),
    [
        ({0, 1}, [{0}, {0, 1}, {0, 1}], {1}),
        ({0, 1, 2, 3}, [{0, 1, 2}, {0, 1, 2}, {0, 1, 2, 3}], {3}),
        ({0, 1, 2, 3}, [{0}, {1}, {2}, {0, 1, 2, 3}], {3}),
        ({0, 1}, [{0, 1}], {0, 1}),
        ({0, 1}, [{0}, {1}], {0, 1}),
        ({0}, [{0}], {0}),
    ],
)
def test_the_thread_takes_the_processors_that_no_other_is_bound_to(
    allowed: set[int], threads: list[set[int]], free: set[int]
) -> None:
    assert free_processors(allowed, threads) == free


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be bound here")
def test_the_thread_leaves_the_processor_that_computes(managers: Managers, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("there is one processor only")
    seen: list[set[int]] = []
    read_adapter = managers._load_adapter
    managers._load_adapter = lambda request: (seen.append(os.sched_getaffinity(0)), read_adapter(request))[1]  # type: ignore[method-assign,func-returns-value]
    computes = min(allowed)

    def compute() -> None:
        os.sched_setaffinity(0, {computes})
        assert read(Reader(managers, CPU)) == "held"

    thread = threading.Thread(target=compute)
    threads, listed = torch.get_num_threads(), worker._threads

    ended = threading.Thread(target=lambda: None)
    ended.start()
    ended.join()

    def ours() -> list[int]:
        """Of this process, one that has ended since they were listed, and those that stay."""
        assert ended.native_id is not None
        return [ended.native_id, *(each for each in listed() if each in (os.getpid(), thread.native_id))]

    monkeypatch.setattr(worker, "_threads", ours)
    monkeypatch.setattr(os, "getppid", os.getpid)  # the parent of a container's process may be out of sight
    thread.start()
    thread.join()
    assert seen == [allowed - {computes}]
    assert torch.get_num_threads() == threads
