"""What the engine holds ahead of requests: pinned adapters, and those that it held before a restart.

    run    ├── keep pins: read the pins again and again; load what they name, then let go what they named before
           ├── warm up: once, load what was in memory when the server last ran
           └── take note: write down what is in memory now

All of it goes on in the background. A request never waits for it: it joins the loading of its own adapter, and takes
the place of any other that is not pinned. What fails is logged, and the server goes on.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from loraloom.adapters.names import Adapter, Selection, parse
from loraloom.server.gate.exchange import Choice
from loraloom.server.gate.leases import Leases
from loraloom.server.gate.note import Note

log = logging.getLogger("vllm.loraloom.residency")


@dataclass(frozen=True)
class Pace:
    """Seconds between two rounds.

    Attributes:
        pins: between two readings of the pins.
        note: between two looks at what is in memory.
    """

    pins: float = 5.0
    note: float = 1.0


@dataclass
class Residency:
    """Keeps adapters in the engine's memory that no request asks for now.

    Attributes:
        pins: the pinned selections, the oldest pin first; may block.
        settle: what a selection stands for, if this server can serve it; may block.
        note: what was in memory when the server last ran.
    """

    leases: Leases
    pins: Callable[[], Sequence[Adapter]]
    settle: Callable[[Selection], Choice]
    note: Note
    pace: Pace = Pace()
    _kept: dict[Adapter, str] = field(default_factory=dict)
    _untried: list[str] = field(default_factory=list)
    _told: frozenset[str] = frozenset()
    _noted: frozenset[str] = frozenset()
    _noting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Until cancelled."""
        self._untried = await asyncio.to_thread(self.note.read)
        self._noted = frozenset(self._untried)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_pins())
            tasks.create_task(self._warm_up())
            tasks.create_task(self._take_note())

    async def _keep_pins(self) -> None:
        while True:
            problems: list[str] = []
            try:
                wanted = await asyncio.to_thread(self._wanted, problems)
                await self._keep(wanted, problems)
            except Exception as error:
                problems.append(f"the pins cannot be read: {error}")
            for problem in problems:
                if problem not in self._told:  # once, and not in every round
                    log.warning("%s", problem)
            self._told = frozenset(problems)
            await asyncio.sleep(self.pace.pins)

    def _wanted(self, problems: list[str]) -> Mapping[Adapter, Choice]:
        """What each pin stands for now, as many as can be kept."""
        found: dict[str, tuple[Adapter, Choice]] = {}
        for pin in self.pins():
            try:
                choice = self.settle(Selection(pin))
                found.setdefault(choice.model, (pin, choice))
            except Exception as error:
                problems.append(f"the pin of {pin} has no effect on this server: {error}")
        most = self.leases.most_pinned
        left_out = [str(pin) for pin, _ in list(found.values())[most:]]
        if left_out:
            problems.append(
                f"of {len(found)} pinned adapters {most} are kept in memory, and {', '.join(left_out)} not: start the "
                "server with a larger --max-cpu-loras, or unpin some"
            )
        return dict(list(found.values())[:most])

    async def _keep(self, wanted: Mapping[Adapter, Choice], problems: list[str]) -> None:
        """Load what is wanted and not there; what a pin named before goes when its successor is there."""
        self._kept = {pin: name for pin, name in self._kept.items() if pin in wanted}
        self.leases.pin(set(self._kept.values()))
        for pin, choice in wanted.items():
            name = choice.model
            assert choice.content is not None, "a pin is of an adapter"
            if self._kept.get(pin) == name and self.leases.resident(name):
                continue
            try:
                async with self.leases.hold(name, choice.content):
                    self._kept[pin] = name
                    self.leases.pin(set(self._kept.values()))
            except Exception as error:
                problems.append(f"{name} is pinned and cannot be loaded: {error}")

    async def _warm_up(self) -> None:
        """Load one after the other; the note lacks what is being tried, in case that it brings the engine down."""
        while self._untried:
            name = self._untried.pop(0)
            await self._keep_note()
            try:
                choice = await asyncio.to_thread(self.settle, parse(name))
                if choice.content is not None:
                    await self.leases.fill(choice.model, choice.content)
            except Exception as error:
                log.info("%s was in memory before the restart and is not brought back: %s", name, error)

    async def _take_note(self) -> None:
        try:
            while True:
                await self._keep_note()
                await asyncio.sleep(self.pace.note)
        finally:
            self.note.write(self._names())

    async def _keep_note(self) -> None:
        """Write down what is in memory if the note has others; one at a time, or an older write may end last."""
        async with self._noting:
            names = self._names()
            if self._noted != frozenset(names):
                await asyncio.to_thread(self.note.write, names)
                self._noted = frozenset(names)

    def _names(self) -> list[str]:
        """What is in memory, and what may still come back."""
        residents = self.leases.residents
        return [*residents, *(name for name in self._untried if name not in residents)]
