"""How things stand when Prometheus asks: what is in memory, what waits, what runs, and whether the engine does."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = logging.getLogger("vllm.loraloom.standing")

PACE = 5.0
"""Seconds between two questions to the engine where each adapter is."""

Numbers: TypeAlias = Callable[[], Mapping[str, int]]
"""How many there are of each kind. Called in the thread of a scrape: it must not wait, and copies what may change."""


class Book(Protocol):
    """The ledger, as far as one may want to know of it."""

    @property
    def written(self) -> int:
        """Lines that were written."""

    @property
    def dropped(self) -> int:
        """Lines that there was no room for."""

    @property
    def failing(self) -> bool:
        """Whether the last attempt to write failed."""

    @property
    def free_bytes(self) -> int | None:
        """What is free on its disk, as far as is known."""


@dataclass
class Tiers:
    """How many adapters are where, as the engine last said: it answers between two steps, which a scrape cannot await.

    Attributes:
        ask: the tier of each adapter that the engine holds; None when it has no time to say.
    """

    ask: Callable[[], Awaitable[Mapping[str, str] | None]]
    _known: Mapping[str, int] = field(default_factory=dict)

    async def run(self) -> None:
        """Ask again and again, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(PACE)

    async def look(self) -> None:
        """Ask once."""
        tiers = await self.ask()
        if tiers is not None:
            self._known = Counter(tiers.values())

    def numbers(self) -> Mapping[str, int]:
        """As `Numbers`."""
        return {"slot": 0, "cpu": 0, **self._known}


@dataclass(frozen=True)
class Sources:
    """Where the numbers come from.

    Attributes:
        alive: whether the engine is.
        tiers: adapters in the engine's memory, by tier: "slot" or "cpu".
        pinned: adapters that stay there.
        damaged: adapters that were found damaged, and are not served.
        jobs: jobs that have not ended, by status: "queued" or "running".
        waiting: requests that wait at the edge, by key.
        waiting_behind: those of them that come last, as jobs do; not among the others.
        running: requests that the engine works on, by key.
        label_of: the label of a key.
        ledger: where usage is written down, if it is.
    """

    alive: Callable[[], bool]
    tiers: Numbers
    pinned: Callable[[], int]
    damaged: Callable[[], int]
    jobs: Numbers
    waiting: Numbers
    running: Numbers
    label_of: Callable[[str], str]
    ledger: Book | None = None
    waiting_behind: Numbers = dict


@dataclass(eq=False)
class Standing(Collector):
    """Reads its sources at every scrape; what one of them cannot say is left out."""

    sources: Sources
    _silent: set[str] = field(default_factory=set)

    def collect(self) -> Iterable[Metric]:
        """As Prometheus' client asks for it."""
        it = self.sources
        read: tuple[tuple[str, Callable[[], Metric]], ...] = (
            ("engine", lambda: _single("engine_up", "Whether the engine runs: 1, or 0", int(it.alive()))),
            ("adapters", lambda: _gauge("resident_adapters", "Adapters in the engine's memory", "tier", it.tiers())),
            ("pins", lambda: _single("pinned_adapters", "Adapters that stay in memory", it.pinned())),
            ("damage", lambda: _single("damaged_adapters", "Adapters found damaged", self.sources.damaged())),
            ("jobs", lambda: _gauge("jobs", "Jobs that have not ended", "status", it.jobs())),
            ("queue", self._queue),
            ("work", self._work),
        )
        for name, make in read:
            try:
                yield make()
            except Exception:
                if name not in self._silent:  # once, and not in every scrape
                    log.exception("the metrics cannot say how it stands with: %s", name)
                self._silent.add(name)
        if self.sources.ledger is not None:
            yield from _of_the_ledger(self.sources.ledger)

    def _queue(self) -> Metric:
        """Those that come last have a label of their own: they wait for as long as others come, and are no alarm."""
        text, labels = "Requests in the queue at the edge", ("key", "background")
        family = GaugeMetricFamily("loraloom_waiting_requests", text, labels=labels)
        for background, numbers in (("false", self.sources.waiting), ("true", self.sources.waiting_behind)):
            for key, count in self._labelled(numbers).items():
                family.add_metric((key, background), count)
        return family

    def _work(self) -> Metric:
        text = "Requests that the engine works on"
        return _gauge("running_requests", text, "key", self._labelled(self.sources.running))

    def _labelled(self, numbers: Numbers) -> Mapping[str, int]:
        labelled: Counter[str] = Counter()
        for key, count in numbers().items():
            labelled[self.sources.label_of(key)] += count
        return labelled


def _of_the_ledger(book: Book) -> Iterable[Metric]:
    yield CounterMetricFamily("loraloom_ledger_lines", "Lines written to the usage ledger", value=book.written)
    yield CounterMetricFamily(
        "loraloom_ledger_dropped_lines", "Lines that the ledger had no room for", value=book.dropped
    )
    yield _single("ledger_failing", "Whether the usage ledger cannot be written: 1, or 0", int(book.failing))
    if book.free_bytes is not None:
        yield _single("ledger_free_bytes", "What is free on the disk of the usage ledger", book.free_bytes)


def _single(name: str, text: str, value: int) -> Metric:
    return GaugeMetricFamily(f"loraloom_{name}", text, value=value)


def _gauge(name: str, text: str, label: str, numbers: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(f"loraloom_{name}", text, labels=(label,))
    for kind, count in numbers.items():
        family.add_metric((kind,), count)
    return family
