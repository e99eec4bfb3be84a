"""LoraLoom's part of vLLM's worker: adapters are read into main memory beside the engine's work, and not within it.

vLLM by itself reads an adapter's files between two steps of its engine, which every request waits for, and puts it
into a slot at once, in the place of another that may be in use again in the next step. Here a thread reads, and the
engine's own first step with the adapter gives it a slot. Every line that knows vLLM's insides is here or in `engine`.

`AsyncLLM.collective_rpc` calls the methods of `AdapterReading` between two steps: so they are short, and a caller asks
again until the reading has come to an end.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, Literal, TypeAlias

import torch
from torch import set_num_threads  # vLLM replaces the name in `torch` later, when it has bound its own threads
from vllm.lora.lora_model import LoRAModel
from vllm.lora.request import LoRARequest

log = logging.getLogger("vllm.loraloom.worker")

State: TypeAlias = Literal["reading", "held", "refused"]


class Reader:
    """Reads adapters into the main memory of one worker, one after the other."""

    def __init__(self, worker_manager: Any, device: torch.device) -> None:
        """
        Args:
            worker_manager: vLLM's `LRUCacheWorkerLoRAManager`.
            device: of the worker.
        """
        self._reading = worker_manager
        self._adapters = worker_manager._adapter_manager
        self._reads: dict[int, Future[LoRAModel]] = {}
        self._thread = ThreadPoolExecutor(1, "loraloom-reader", partial(stand_aside, device))

    def read(self, request: LoRARequest) -> State:
        """Begin to read an adapter; ask again with the same request until it is not "reading" any more.

        An adapter that is refused leaves nothing behind, and would be read anew.
        """
        identifier = request.lora_int_id
        if identifier in self._adapters.list_adapters():
            return "held"
        if identifier not in self._reads:
            self._reads[identifier] = self._thread.submit(self._bring, request)
        if not self._reads[identifier].done():
            return "reading"
        return self._keep(request, self._reads.pop(identifier))

    def drop(self, identifier: int) -> bool:
        """Free an adapter, also while it is being read; False if there is nothing to free."""
        reading = self._reads.pop(identifier, None)
        if reading is not None:
            reading.cancel()
        return bool(self._reading.remove_adapter(identifier)) or reading is not None

    def tiers(self) -> tuple[list[int], list[int]]:
        """The adapters in slots, and all that are in main memory, those in slots included."""
        slots = [identifier for identifier in self._adapters.lora_index_to_id if identifier is not None]
        return slots, list(self._adapters.list_adapters())

    def _bring(self, request: LoRARequest) -> LoRAModel:
        """Everything that takes time, in the thread; what it looks at in the managers never changes."""
        adapter: LoRAModel = self._reading._load_adapter(request)
        self._adapters._create_merged_loras_inplace(adapter)
        for weights in adapter.loras.values():
            weights.lora_a, weights.lora_b = owned(weights.lora_a), owned(weights.lora_b)
        return adapter

    def _keep(self, request: LoRARequest, reading: "Future[LoRAModel]") -> State:
        try:
            self._adapters.add_adapter(reading.result())  # finds its modules merged already
        except Exception:
            log.exception("adapter %s cannot be loaded from %s", request.lora_name, request.lora_path)
            return "refused"
        return "held"


class AdapterReading:
    """What vLLM mixes into its worker class, by `--worker-extension-cls`."""

    model_runner: Any
    device: torch.device

    @cached_property
    def loraloom_reader(self) -> Reader:
        """Of this worker."""
        return Reader(self.model_runner.lora_manager, self.device)

    def loraloom_read(self, identifier: int, name: str, folder: str) -> State:
        """See `Reader.read`."""
        return self.loraloom_reader.read(LoRARequest(name, identifier, folder))

    def loraloom_drop(self, identifier: int) -> bool:
        """See `Reader.drop`."""
        return self.loraloom_reader.drop(identifier)

    def loraloom_tiers(self) -> tuple[list[int], list[int]]:
        """See `Reader.tiers`."""
        return self.loraloom_reader.tiers()


def owned(weights: Any) -> Any:
    """The weights in memory of their own, a tensor or a list of them: as read, they may still be pages of the file.

    The first use would wait for the disk then, and a file cut short meanwhile would end the process.
    """
    if isinstance(weights, list):
        return [owned(each) for each in weights]
    return weights if weights is None or weights.is_pinned() else weights.clone()


def stand_aside(device: torch.device) -> None:
    """Let the current thread disturb the worker's computing as little as it can."""
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)  # pinning memory would open a context on the first device otherwise
        return
    set_num_threads(1)  # of this thread; more would be a second team on the processors of the first
    torch.get_num_threads()  # Intel's OpenMP binds a thread at its first question, and not again
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            allowed = os.sched_getaffinity(os.getppid())
            os.sched_setaffinity(0, free_processors(allowed, _affinities()))


def free_processors(allowed: set[int], threads: Iterable[set[int]]) -> set[int]:
    """The processors to which none of a process's threads is bound; all allowed ones if there is none.

    Args:
        allowed: those that the process was given.
        threads: those on which each of its threads may run.
    """
    bound = {processor for affinity in threads if affinity < allowed for processor in affinity}
    return allowed - bound or allowed


def _affinities() -> Iterator[set[int]]:
    """Of each thread of this process; one may end meanwhile."""
    for thread in _threads():
        with contextlib.suppress(ProcessLookupError):
            yield os.sched_getaffinity(thread)


def _threads() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/task")]
