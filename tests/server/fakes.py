"""An engine without a model, that keeps to what vLLM promises and demands."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from loraloom.server.gate.gate import Tier


class FakeEngine:
    """Holds adapters in memory as vLLM does, and notes a fault where vLLM would be led astray.

    What it has begun to load it loads to the end, whoever stops waiting. It never makes room by itself: being given
    more than it holds is a fault, and so is taking out an adapter that a request still uses.

    Attributes:
        silent: whether it has no time to say what it holds.
        held: names in memory.
        folders: the directory from which each name was loaded last.
        loads, unloads: names in the order of the calls.
        refused: names that it cannot load.
        stuck: names whose loading waits until they are taken out of this set and `go` is set.
        idle: names that change nothing.
        faults: what no caller may ever bring about.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.dead = False
        self.max_model_len = 2048
        self.silent = False
        self.held: set[str] = set()
        self.folders: dict[str, Path] = {}
        self.loads: list[str] = []
        self.unloads: list[str] = []
        self.refused: set[str] = set()
        self.stuck: set[str] = set()
        self.idle: set[str] = set()
        self.go = asyncio.Event()
        self.faults: list[str] = []
        self.pace: Callable[[], int] = lambda: 1
        self._used: Counter[str] = Counter()

    async def load(self, name: str, folder: Path) -> None:
        """Read an adapter from its directory."""
        self.loads.append(name)
        self.folders[name] = folder
        await asyncio.shield(asyncio.ensure_future(self._load(name)))

    async def unload(self, name: str) -> None:
        """Free an adapter, if it is held."""
        self.unloads.append(name)
        await asyncio.shield(asyncio.ensure_future(self._unload(name)))

    async def prompt_logprobs(self, name: str | None, prompt: str) -> list[float]:
        """As likely as the words of a prompt are short; an adapter that is not in `idle` doubles that."""
        if name is None or name in self.idle:
            return [-float(len(word)) for word in prompt.split()]
        with self.using(name):
            return [-2.0 * len(word) for word in prompt.split()]

    async def tiers(self) -> dict[str, Tier] | None:
        """What is used has a slot."""
        if self.silent:
            return None
        return {name: "slot" if self._used[name] else "cpu" for name in self.held}

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Compute with an adapter, as a request does from its first step to its last."""
        self.check(name)
        self._used[name] += 1
        try:
            yield
        finally:
            self.check(name)
            self._used[name] -= 1

    def check(self, name: str) -> None:
        """An adapter that is used is held."""
        self._fault_if(name not in self.held, f"{name} is used and not held")

    async def _load(self, name: str) -> None:
        while name in self.stuck:
            self.go.clear()
            await self.go.wait()
        await self._steps()
        if name in self.refused:
            raise ValueError(f"{name} does not fit the model")
        self._fault_if(name in self.held, f"{name} is loaded twice")
        self._fault_if(len(self.held) >= self.capacity, f"{name} is one too many beside {sorted(self.held)}")
        self.held.add(name)

    async def _unload(self, name: str) -> None:
        await self._steps()
        self._fault_if(self._used[name] > 0, f"{name} is unloaded while it is used")
        self.held.discard(name)

    async def _steps(self) -> None:
        for _ in range(self.pace()):
            await asyncio.sleep(0)

    def _fault_if(self, wrong: bool, fault: str) -> None:
        if wrong:
            self.faults.append(fault)
