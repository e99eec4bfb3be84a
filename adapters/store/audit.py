"""The audit log: who changed what in a store, as one chain of entries, of which none can be changed unseen.

    audit/000017.json    one change: what and by whom, the records that made it true, each with the SHA-256 of its
                         bytes, and the SHA-256 of the bytes of entry 16; the first entry names `store.json` too

The records are the truth, and an entry is written right after those that it is about. So a change whose author dies in
between, or finds the store full, has happened all the same and is missing in the log: the check finds it, and it can
be adopted. Whoever finds a number taken takes the next one, so that all processes on all machines write one chain.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from loraloom.adapters.errors import StoreError
from loraloom.adapters.store.journal import Journal, record_path
from loraloom.adapters.store.objects import MARK, Objects
from loraloom.adapters.store.records import Record, decode, encode

log = logging.getLogger(__name__)

FOLDER = "audit"
_RECORD = re.compile(r"(?:[^/]+/)*[^/]+\.json")
_ATTEMPTS = 1000
_STEPS = 8
_LOOKS = 32
_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry(Record):
    """One change.

    Attributes:
        action: "publish", "tag", "rollback", "remove", "pin", "unpin", "adopt" (records that were found without an
            entry), or what others note.
        subject: what was changed, such as the name and the version.
        records: hex SHA-256 of the bytes of each record that made it true, by its path.
        previous: hex SHA-256 of the bytes of the entry before; None in the first.
    """

    action: str
    subject: Mapping[str, object] = field(default_factory=dict)
    records: Mapping[str, str] = field(default_factory=dict)
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log ends: the number of its last entry, 0 if there is none, and the hex SHA-256 of that one's bytes."""

    number: int = 0
    sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.number}:{self.sha256 or '-'}"


class AuditLog:
    """The log of one store. Thread-safe, as all of it is one object an entry, created exclusively."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._end = Head()

    def note(self, action: str, subject: Mapping[str, object], records: Mapping[str, str], by: str | None) -> bool:
        """Write down a change that has been made.

        What has happened must not look failed, or it would be done twice. So where the entry cannot be written, that
        goes to the program's own log, and this returns False.
        """
        try:
            self.append(action, subject, records, by)
        except StoreError as error:
            what = ", ".join(f"{key} {value}" for key, value in subject.items())
            log.error(
                "%s (%s) is done, and is missing in the audit log: `loraloom audit adopt` adds it. %s",
                action,
                what,
                error,
            )
            return False
        return True

    def append(
        self, action: str, subject: Mapping[str, object], records: Mapping[str, str], by: str | None
    ) -> AuditEntry:
        """Write an entry at the end.

        Args:
            records: SHA-256 by path, see `AuditEntry`.
            by: who made the change, if that is known.

        Raises:
            StoreError: it could not be written.
        """
        for _ in range(_ATTEMPTS):
            end = self._end = self._catch_up(self._end)
            named = records if end.number else {**records, **self._mark()}
            entry = AuditEntry(
                number=end.number + 1, action=action, subject=subject, records=named, by=by, previous=end.sha256
            )
            data = encode(entry)
            if self._objects.create(record_path(FOLDER, entry.number), data):
                self._end = Head(entry.number, sha256_of(data))
                return entry
        raise StoreError(f"too many others write to the audit log of the store {self._objects.url}: try again")

    def written(self, after: int = 0) -> Iterator[tuple[int, bytes]]:
        """The number and the bytes of every entry beyond one, ascending; an entry that disappears is left out."""
        self._objects.refresh(FOLDER)
        numbers = [number for number in Journal(self._objects).numbers(FOLDER) if number > after]
        for first in range(0, len(numbers), _AT_ONCE):
            some = numbers[first : first + _AT_ONCE]
            data = self._objects.map(self._objects.read, [record_path(FOLDER, number) for number in some])
            yield from ((number, each) for number, each in zip(some, data, strict=True) if each is not None)

    def entries(self) -> Iterator[AuditEntry]:
        """Every entry, oldest first.

        Raises:
            StoreError: one cannot be read, or makes no sense.
        """
        for number, data in self.written():
            try:
                yield entry_of(number, data)
            except ValueError as error:
                place = f"{record_path(FOLDER, number)} of the store {self._objects.url}"
                raise StoreError(f"the audit entry {place} is damaged: {error}. Restore it from a backup") from error

    def _mark(self) -> dict[str, str]:
        data = self._objects.read(MARK)
        return {} if data is None else {MARK: sha256_of(data)}

    def _catch_up(self, end: Head) -> Head:
        """The end that there is now, found from an earlier one. Others have seldom written much since."""
        for _ in range(_STEPS):
            data = self._objects.read(record_path(FOLDER, end.number + 1))
            if data is None:
                return end
            end = Head(end.number + 1, sha256_of(data))
        number = self._last(end.number)
        data = self._objects.read(record_path(FOLDER, number))
        return end if data is None else Head(number, sha256_of(data))

    def _last(self, low: int) -> int:
        """The number of the last entry, from that of an earlier one, in a few rounds; listing all would take longer."""
        high = low + 2**_LOOKS
        points = [low + 2**power for power in range(_LOOKS)]
        while points:
            looks = self._objects.map(self._objects.read, [record_path(FOLDER, point) for point in points])
            for point, data in zip(points, looks, strict=True):
                if data is None:
                    high = point
                    break
                low = point
            points = list(range(low + 1, high, -(-(high - low) // _LOOKS)))
        return low


def entry_of(number: int, data: bytes) -> AuditEntry:
    """The entry of that number that `data` holds; raises `ValueError` where it is none."""
    try:
        entry = decode(AuditEntry, data)
    except RecursionError as error:
        raise ValueError("it is too deep") from error
    if entry.number != number:
        raise ValueError(f"its number is {entry.number!r}")
    texts = all(isinstance(each, str) for each in (entry.action, entry.created, "" if entry.by is None else entry.by))
    if not (texts and isinstance(entry.subject, dict) and isinstance(entry.records, dict)):
        raise ValueError("its fields have other types than those of an entry")
    for path, sha256 in entry.records.items():
        if not (_RECORD.fullmatch(path) and ".." not in path.split("/") and isinstance(sha256, str)):
            raise ValueError(f"it names {path!r}, which is no record")
    return entry


def sha256_of(data: bytes) -> str:
    """The hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def evidence(folder: str, *records: Record) -> dict[str, str]:
    """What an entry says of records in one folder."""
    return {record_path(folder, record.number): sha256_of(encode(record)) for record in records}
