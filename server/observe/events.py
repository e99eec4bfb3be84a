"""What happens to adapters between requests, told by the gate as it happens, for Prometheus."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Literal, Protocol, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Histogram

Stage: TypeAlias = Literal["verify", "engine"]
"""Of loading an adapter: its files are found, fetched and hashed; the engine's workers read them into memory."""

LOADS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60)
BUILDS = (0.02, 0.1, 0.5, 2, 10, 60)


class Events(Protocol):
    """Whoever wants to know. Every call is cheap and may come from any thread."""

    def asked(self, *, resident: bool) -> None:
        """A request needs an adapter that was in the engine's memory, or was not."""

    def loaded(self, stage: Stage, seconds: float) -> None:
        """One stage of loading an adapter is done."""

    def failed_to_load(self, stage: Stage) -> None:
        """One stage of loading an adapter has failed."""

    def evicted(self) -> None:
        """An adapter has left the engine's memory."""

    def built(self, seconds: float) -> None:
        """A mixture was built."""

    def failed_to_build(self) -> None:
        """A mixture could not be built."""


class Unheard:
    """Events that nobody wants to know of."""

    def asked(self, *, resident: bool) -> None:
        """See `Events`."""

    def loaded(self, stage: Stage, seconds: float) -> None:
        """See `Events`."""

    def failed_to_load(self, stage: Stage) -> None:
        """See `Events`."""

    def evicted(self) -> None:
        """See `Events`."""

    def built(self, seconds: float) -> None:
        """See `Events`."""

    def failed_to_build(self) -> None:
        """See `Events`."""


UNHEARD: Events = Unheard()


class Counted:
    """Events as counters; 40 series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """
        Args:
            registry: which the counters are in.
        """
        self._asked = Counter(
            "loraloom_adapter_lookups",
            "Requests by where their adapter was when they needed it: in the engine's memory, or not",
            ["found"],
            registry=registry,
        )
        self._loads = Histogram(
            "loraloom_adapter_load_seconds",
            "Loading adapters into the engine's memory, by stage",
            ["stage"],
            buckets=LOADS,
            registry=registry,
        )
        self._failures = Counter(
            "loraloom_adapter_load_failures",
            "Adapters that could not be loaded, by stage",
            ["stage"],
            registry=registry,
        )
        self._evictions = Counter(
            "loraloom_adapter_evictions", "Adapters that have left the engine's memory", registry=registry
        )
        self._builds = Histogram(
            "loraloom_mixture_build_seconds", "Building mixtures", buckets=BUILDS, registry=registry
        )
        self._refused = Counter(
            "loraloom_mixture_build_failures", "Mixtures that could not be built", registry=registry
        )
        for found in ("memory", "disk"):
            self._asked.labels(found)
        for stage in ("verify", "engine"):
            self._loads.labels(stage)
            self._failures.labels(stage)

    def asked(self, *, resident: bool) -> None:
        """See `Events`."""
        self._asked.labels("memory" if resident else "disk").inc()

    def loaded(self, stage: Stage, seconds: float) -> None:
        """See `Events`."""
        self._loads.labels(stage).observe(seconds)

    def failed_to_load(self, stage: Stage) -> None:
        """See `Events`."""
        self._failures.labels(stage).inc()

    def evicted(self) -> None:
        """See `Events`."""
        self._evictions.inc()

    def built(self, seconds: float) -> None:
        """See `Events`."""
        self._builds.observe(seconds)

    def failed_to_build(self) -> None:
        """See `Events`."""
        self._refused.inc()


@contextmanager
def loading(events: Events, stage: Stage) -> Iterator[None]:
    """Tell how long a stage of loading takes, or that it fails."""
    began = monotonic()
    try:
        yield
    except BaseException:
        events.failed_to_load(stage)
        raise
    events.loaded(stage, monotonic() - began)


@contextmanager
def building(events: Events) -> Iterator[None]:
    """Tell how long the building of a mixture takes, or that it fails."""
    began = monotonic()
    try:
        yield
    except BaseException:
        events.failed_to_build()
        raise
    events.built(monotonic() - began)
