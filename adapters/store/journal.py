"""Numbered records: `<folder>/000004.json`, each created exclusively and never changed."""

import re

from loraloom.adapters.errors import DamagedRecord
from loraloom.adapters.store.objects import Objects
from loraloom.adapters.store.records import AnyRecord, Record, decode, encode

_FILE = re.compile(r"([0-9]{6,})\.json")
_MOST_KNOWN = 2**15


class Journal:
    """The records of a store. What has been read once is kept in memory, within bounds, since it cannot change."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self._known: dict[tuple[str, int], Record] = {}

    def numbers(self, folder: str) -> list[int]:
        """The numbers of the records in `folder`, ascending."""
        return sorted(int(match[1]) for match in map(_FILE.fullmatch, self.objects.list(folder)) if match)

    def get(self, folder: str, number: int, kind: type[AnyRecord]) -> AnyRecord:
        """The record of that number, which is known to exist.

        Raises:
            DamagedRecord: it disappeared, or makes no sense.
            StoreError: it cannot be read.
        """
        record = self._known.get((folder, number))
        if record is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            record = self._known[folder, number] = self._read(folder, number, kind)
        assert isinstance(record, kind)
        return record

    def append(self, folder: str, record: Record) -> bool:
        """Create the record under its number. False: somebody else has taken that number."""
        return self.objects.create(record_path(folder, record.number), encode(record))

    def _read(self, folder: str, number: int, kind: type[AnyRecord]) -> AnyRecord:
        path = record_path(folder, number)
        data = self.objects.read(path)
        try:
            if data is None:
                raise ValueError("it disappeared")
            record = decode(kind, data)
            if record.number != number:
                raise ValueError(f"its number is {record.number!r}")
        except ValueError as error:
            raise DamagedRecord(path, self.objects.url, str(error)) from error
        return record


def record_path(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}.json"
