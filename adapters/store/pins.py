"""Pins: the selections whose adapters servers keep in memory.

    pins/<name>/000003.json    all that is pinned under this name, after its third change; the highest number counts

A pin is a selection, so `sql` follows the tag "latest". It ends with the name: when the last version has been removed,
nothing is pinned, also if the name is published again later.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

from loraloom.adapters.errors import AdapterNotFound, StoreError
from loraloom.adapters.names import Adapter, parse_version
from loraloom.adapters.store.audit import evidence
from loraloom.adapters.store.history import History, folder_of, next_number
from loraloom.adapters.store.journal import Journal
from loraloom.adapters.store.objects import Objects
from loraloom.adapters.store.records import PinRecord
from loraloom.adapters.store.registry import Registry

_ATTEMPTS = 1000

Pinned: TypeAlias = Mapping[str, str]
"""When each version of a name was pinned (UTC, ISO 8601), by the version as it was given."""


class Pins:
    """The pins of a store. Every change is a new record under the next number, as with all that a store writes."""

    def __init__(self, objects: Objects, registry: Registry) -> None:
        self._objects = objects
        self._registry = registry
        self._journal = Journal(objects)

    def all(self) -> list[Adapter]:
        """Every pinned selection, the oldest pin first; one may stand for no version any more."""
        self._objects.check()
        self._objects.refresh("pins")
        newest = self._objects.map(self._newest, [f"pins/{name}" for name in self._objects.list("pins")])
        names = [record.name for record in newest if record and record.pins]
        return _oldest_first(pin for name in names for pin in self._under(name))

    def of(self, name: str) -> list[Adapter]:
        """What is pinned under a name, the oldest pin first."""
        return _oldest_first(self._under(name))

    def add(self, adapter: Adapter, by: str | None) -> bool:
        """Pin a selection, which must stand for a version; False if it is pinned. Raises as `Registry.resolve`."""
        self._registry.resolve(adapter)

        def added(pins: Pinned, now: str) -> Pinned:
            return {str(adapter.version): now, **pins}

        return self._change("pin", adapter, added, by)

    def discard(self, adapter: Adapter, by: str | None) -> bool:
        """End a pin; False if there is none. Raises `AdapterNotFound` if there is no such name."""

        def without(pins: Pinned, _: str) -> Pinned:
            return {version: since for version, since in pins.items() if version != str(adapter.version)}

        return self._change("unpin", adapter, without, by)

    def _change(self, action: str, adapter: Adapter, change: Callable[[Pinned, str], Pinned], by: str | None) -> bool:
        """Write what `change` makes of the pins of a name and of the time; False: it leaves them as they are."""
        name, folder = adapter.name, _folder(adapter.name)
        for _ in range(_ATTEMPTS):
            self._objects.refresh(folder)
            # The number comes first: whatever another process writes after this look takes it, and we try again.
            numbers = self._journal.numbers(folder)
            history = self._registry.known(name)
            pins = self._live(history, folder, numbers)
            record = PinRecord(number=next_number(numbers), name=name, end=history.end, by=by)
            record = replace(record, pins=change(pins, record.created))
            if record.pins == pins:
                return False
            self._registry.prepare()
            if self._journal.append(folder, record):
                subject = {"name": name, "version": str(adapter.version)}
                self._registry.audit.note(action, subject, evidence(folder, record), by)
                return True
        raise StoreError(f"too many others change the pins of {name!r} in the store {self._objects.url}: try again")

    def _under(self, name: str) -> list[tuple[str, Adapter]]:
        """When each selection of a name was pinned."""
        folder = _folder(name)
        try:
            pins = self._live(self._registry.known(name), folder, self._journal.numbers(folder))
        except AdapterNotFound:
            return []
        return [(since, Adapter(name, parse_version(version))) for version, since in pins.items()]

    def _live(self, history: History, folder: str, numbers: list[int]) -> Pinned:
        """What the last of these records says is pinned since the name was published, or published again."""
        record = self._record(folder, numbers)
        return record.pins if record and record.end == history.end else {}

    def _newest(self, folder: str) -> PinRecord | None:
        return self._record(folder, self._journal.numbers(folder))

    def _record(self, folder: str, numbers: list[int]) -> PinRecord | None:
        return self._journal.get(folder, numbers[-1], PinRecord) if numbers else None


def _folder(name: str) -> str:
    return f"pins/{folder_of(name).removeprefix('names/')}"


def _oldest_first(pins: Iterable[tuple[str, Adapter]]) -> list[Adapter]:
    return [adapter for _, adapter in sorted(pins, key=lambda pin: (pin[0], str(pin[1])))]
