"""Checking a store against its audit log: is the chain whole, is what it names there, and is there nothing else?"""

import time
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import partial

from loraloom.adapters.errors import DamagedRecord
from loraloom.adapters.store.audit import FOLDER, AuditEntry, AuditLog, Head, entry_of, sha256_of
from loraloom.adapters.store.history import History
from loraloom.adapters.store.journal import Journal, record_path
from loraloom.adapters.store.layout import was_always_audited
from loraloom.adapters.store.objects import Objects
from loraloom.adapters.store.records import Finding, Record, decode

_GRACE_S = 5.0
_ADOPTED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Audited:
    """The outcome of a check.

    Attributes:
        head: where the log ends.
        records: how many records it names.
        older: the paths of records that no entry names, and that say that they are from before the log began.
        unaudited: those of all others that no entry names.
        findings: what is wrong, the unaudited ones included.
    """

    head: Head
    records: int
    older: tuple[str, ...]
    unaudited: tuple[str, ...]
    findings: tuple[Finding, ...]


class Auditor:
    """The audit log of one store, for those who read it, check it, or note what they have done beside the adapters.

    Args:
        grace: seconds for which a record may wait for its entry, if its author is alive.
    """

    def __init__(self, objects: Objects, log: AuditLog, grace: float = _GRACE_S) -> None:
        self._objects = objects
        self._log = log
        self._grace = grace

    def note(self, action: str, subject: Mapping[str, object], records: Mapping[str, str], by: str | None) -> bool:
        """Write down a change that has been made, of something else than adapters, such as a key.

        False: that could not be, and the program's own log says why. The change has been made all the same.

        Args:
            action: such as "key.create".
            subject: what was changed, for people; no secrets.
            records: by which it was changed, see `evidence`: what was written, and not what the store says now.
            by: who changed it, if that is known.
        """
        return self._log.note(action, subject, records, by)

    def entries(self) -> Iterator[AuditEntry]:
        """Every change, oldest first; raises `StoreError` at an entry that cannot be read."""
        return self._log.entries()

    def check(self, known: Head | None = None) -> Audited:
        """Read the whole log, and all records that it is or should be about.

        The records are listed before the log is read, so what has an entry by then is not missed. What has none gets
        some grace, in which its author may write it.

        Args:
            known: an end of the log that was noted earlier; only by it can be told that everything after some entry
                was cut off or written anew.

        Raises:
            StoreError: the store cannot be read.
        """
        present, unreadable = _present(self._objects)
        chain = _Chain(known)
        chain.follow(self._log)
        older, unaudited = self._unnamed(present, chain)
        if unaudited:
            time.sleep(self._grace)
            chain.follow(self._log)
            older, unaudited = self._unnamed(present, chain)
        chain.end()
        findings = [*chain.findings, *unreadable, *_changed(self._objects, chain.named)]
        findings += [Finding("unaudited", path, "no entry of the log names it") for path in unaudited]
        return Audited(chain.head, len(chain.named), tuple(older), tuple(unaudited), tuple(findings))

    def adopt(self, by: str | None) -> int:
        """Write entries about all records that have none, and return how many these are; raises `StoreError`."""
        audited = self.check()
        paths = [*audited.older, *audited.unaudited]
        for first in range(0, len(paths), _ADOPTED_AT_ONCE):
            some = paths[first : first + _ADOPTED_AT_ONCE]
            records = {path: sha256_of(data) for path, data in _read(self._objects, some) if data is not None}
            self._log.append("adopt", {"records": len(records)}, records, by)
        return len(paths)

    def _unnamed(self, present: Set[str], chain: "_Chain") -> tuple[list[str], list[str]]:
        """The records that no entry names: those that say that they are older than the log, and all others.

        None are older where the log began with the store, and once it has adopted such.
        """
        missing = sorted(present - chain.named.keys())
        if chain.adopted or was_always_audited(self._objects):
            return [], missing
        older = {path for path, data in _read(self._objects, missing) if chain.began_after(_created(data))}
        return sorted(older), [path for path in missing if path not in older]


@dataclass(eq=False)
class _Chain:
    """The entries from the first to one, and what they say.

    Attributes:
        known: an end that was noted earlier.
        head: the entry to which it goes.
        named: every SHA-256 that it gives of a record, by the record's path.
        began: when its first entry was written.
        adopted: whether all records that were there at some time have been taken into it.
    """

    known: Head | None
    head: Head = Head()
    named: dict[str, set[str]] = field(default_factory=dict)
    began: str | None = None
    adopted: bool = False
    findings: list[Finding] = field(default_factory=list)

    def follow(self, log: AuditLog) -> None:
        """Go on to the end that there is now."""
        for number, data in log.written(self.head.number):
            before, self.head = self.head, Head(number, sha256_of(data))
            self._check_place(before)
            self._take(before, data)

    def end(self) -> None:
        """Compare the end with the known one."""
        if self.known is not None and self.known.number > self.head.number:
            self._find(self.known.number, f"it was there, and the log ends at {self.head.number}: its end was cut off")

    def began_after(self, created: str | None) -> bool:
        """Whether the log is younger than a record of that time."""
        return self.began is None or (created is not None and created < self.began)

    def _check_place(self, before: Head) -> None:
        number, first = self.head.number, before.number + 1
        if number > first:
            self._find(first, "it is missing" + (f", and so are all up to {number - 1}" if number > first + 1 else ""))
        if self.known is not None and self.known.number == number and self.known != self.head:
            self._find(number, "it is not the one that was noted as the end: it or one before it was written anew")

    def _take(self, before: Head, data: bytes) -> None:
        number = self.head.number
        try:
            entry = entry_of(number, data)
        except ValueError as error:
            self._find(number, f"it cannot be read: {error}")
            return
        if number == before.number + 1 and entry.previous != before.sha256:
            self._find(max(before.number, 1), f"it is not the one after which entry {number} was written")
        self.began = self.began or entry.created
        self.adopted = self.adopted or entry.action == "adopt"
        for path, sha256 in entry.records.items():
            self.named.setdefault(path, set()).add(sha256)

    def _find(self, number: int, detail: str) -> None:
        self.findings.append(Finding("log", record_path(FOLDER, number), detail))


def _read(objects: Objects, paths: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
    some = list(paths)
    return zip(some, objects.map(objects.read, some), strict=True)


def _created(data: bytes | None) -> str | None:
    """When a record says that it was written."""
    try:
        return str(decode(Record, data or b"").created)
    except (ValueError, RecursionError):
        return None


def _changed(objects: Objects, named: Mapping[str, set[str]]) -> list[Finding]:
    """The records that are not what the log says."""
    return [
        Finding("record", path, "it is missing" if data is None else "it is not what was written, as the log says")
        for path, data in _read(objects, named)
        if data is None or named[path] != {sha256_of(data)}
    ]


def _present(objects: Objects) -> tuple[set[str], list[Finding]]:
    """The paths of all records that count; and the names whose records cannot be read."""
    for folder in ("names", "pins", "keys"):
        objects.refresh(folder)
    journal = Journal(objects)
    names = [f"names/{name}" for name in objects.list("names")]
    others = [f"{kind}/{name}" for kind in ("pins", "keys") for name in objects.list(kind)]
    found = list(objects.map(partial(_of_name, journal), names))
    paths = {path for some, _ in found for path in some} | set(_records(journal, others))
    return paths, [finding for _, finding in found if finding]


def _of_name(journal: Journal, folder: str) -> tuple[list[str], Finding | None]:
    """The records under one name. Moves of tags to versions that were never published do not count."""
    paths = _records(journal, [f"{folder}/versions", f"{folder}/removed"])
    try:
        history = History(journal, folder)
        for tag in journal.objects.list(f"{folder}/tags"):
            paths += [record_path(history.tag_folder(tag), move.number) for move in history.moves(tag)]
    except DamagedRecord as error:
        return paths, Finding("record", folder, str(error))
    return paths, None


def _records(journal: Journal, folders: Iterable[str]) -> list[str]:
    return [record_path(folder, number) for folder in folders for number in journal.numbers(folder)]
