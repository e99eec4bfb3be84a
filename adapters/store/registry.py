"""Names, versions and tags: which adapter is called what, and how that changes."""

import difflib
import heapq
import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from loraloom.adapters.errors import AdapterNotFound, DamagedRecord, NameTaken, StoreError, VersionNotFound
from loraloom.adapters.names import Adapter, Digest, Tag, Version, check_tag
from loraloom.adapters.store.audit import AuditLog, evidence
from loraloom.adapters.store.history import History, folder_of
from loraloom.adapters.store.journal import Journal
from loraloom.adapters.store.layout import mark
from loraloom.adapters.store.objects import Objects
from loraloom.adapters.store.records import Published, Record, RemovalRecord, Removed, TagRecord, VersionRecord

log = logging.getLogger(__name__)

_ATTEMPTS = 1000
_NEAREST = 3
_SHORTLIST = 50

T = TypeVar("T")


class Registry:
    """The records of a store.

    Every change is one new object under the next free number. Whoever finds that number taken was overtaken: it looks
    again and decides anew.

    Attributes:
        audit: the log in which every change is noted once it is made.
        changes: another number after each change that was made with this object.
    """

    def __init__(self, objects: Objects) -> None:
        self.audit = AuditLog(objects)
        self._objects = objects
        self._journal = Journal(objects)
        self._is_marked = False
        self._numbers = itertools.count(1)
        self.changes = 0
        self._told: set[str] = set()

    def prepare(self) -> None:
        """See that the store is there and can be written to; raises `StoreError`."""
        self._objects.check()
        if not self._is_marked:
            mark(self._objects)
            self._is_marked = True

    def names(self, folded: Callable[[str], bool] | None = None) -> list[str]:
        """All names that have a live version, in alphabetical order; only those that `folded` lets are read."""
        self._objects.check()
        self._objects.refresh("names")
        spelled = self._objects.map(self._spelling, self._listed(folded))
        return sorted(name for name in spelled if name is not None)

    def known(self, name: str) -> History:
        """The history of a name that has a live version; raises `AdapterNotFound`."""
        history = self._history(folder_of(name))
        self._check_known(history, name)
        return history

    def resolve(self, adapter: Adapter) -> VersionRecord:
        """The live version that `adapter` stands for now; raises `AdapterNotFound` or `VersionNotFound`."""
        found = _select(self._history(folder_of(adapter.name)), adapter.version)
        if found is None or found.name != adapter.name:
            raise _no_version(self.known(adapter.name), adapter.name, str(adapter.version))
        return found

    def check_free(self, name: str) -> None:
        """Raise `NameTaken` if the name exists in another spelling."""
        _check_spelling(self._history(folder_of(name)), name)

    def add(self, draft: VersionRecord, tag: str | None) -> Published:
        """Publish `draft` as the next version, unless a live one has its content.

        Its tags are written first, and count as soon as the version's own record is there: so this commits all at once.
        """

        def attempt(history: History) -> Published | None:
            _check_spelling(history, draft.name)
            if same := history.with_digest(draft.digest):
                return self._add_again(history, same[-1], tag, draft.by)
            version = replace(draft, number=history.next_version)
            moves: dict[str, str] = {}
            for each in version.tags:
                moves |= self._announce(history, each, version)
            if not self._append(f"{history.folder}/versions", version):
                return None
            subject = {"name": version.name, "version": version.number, "tags": version.tags}
            records = moves | evidence(f"{history.folder}/versions", version)
            self.audit.note("publish", subject, records, version.by)
            return Published(version, created=True)

        return self._commit(draft.name, attempt)

    def tag(self, name: str, tag: str, version: int, by: str | None) -> TagRecord:
        """Let the tag stand at a version; nothing is written if it does. Raises as `resolve`."""

        def attempt(history: History) -> TagRecord | None:
            self._check_known(history, name)
            target = history.version(version)
            if target is None:
                raise _no_version(history, name, str(version))
            return self._move(history, tag, target, by)

        check_tag(tag)
        return self._commit(name, attempt)

    def rollback(self, name: str, tag: str, by: str | None) -> TagRecord:
        """Let the tag stand where it stood before; a second rollback goes one further back. Raises as `resolve`."""

        def attempt(history: History) -> TagRecord | None:
            self._check_known(history, name)
            value = history.value(tag)
            if value is None:
                raise _no_version(history, name, tag)
            earlier = history.before(value)
            if earlier is None:
                raise VersionNotFound(name, tag, detail=f"tag {tag!r} of adapter {name!r} has no earlier version left")
            record = replace(_back_to(earlier, history.next_move(tag)), by=by)
            return record if self._append_move("rollback", history, name, record) else None

        check_tag(tag)
        return self._commit(name, attempt)

    def remove(self, name: str, version: int | None, by: str | None) -> Removed:
        """Remove one version, or all there are. Their tags fall back. Raises as `resolve`."""

        def attempt(history: History) -> Removed | None:
            self._check_known(history, name)
            if version is not None and version not in history.live:
                raise _no_version(history, name, str(version))
            versions = tuple(history.live) if version is None else (version,)
            before = history.tags()
            last = len(versions) == len(history.live)
            record = RemovalRecord(number=history.next_removal, versions=versions, last=last, by=by)
            if not self._append(f"{history.folder}/removed", record):
                return None
            subject = {"name": name, "versions": versions}
            self.audit.note("remove", subject, evidence(f"{history.folder}/removed", record), by)
            after = self._history(history.folder).tags()
            return Removed(name, versions, {tag: after.get(tag) for tag, at in before.items() if at in versions})

        return self._commit(name, attempt)

    def _commit(self, name: str, attempt: Callable[[History], T | None]) -> T:
        """What `attempt` returns for the present history, once no other writer overtakes it."""
        folder = folder_of(name)
        for _ in range(_ATTEMPTS):
            self._objects.refresh(folder)
            outcome = attempt(self._history(folder))
            if outcome is not None:
                return outcome
        raise StoreError(f"too many others write to {name!r} in the store {self._objects.url}: try again")

    def _add_again(self, history: History, version: VersionRecord, tag: str | None, by: str | None) -> Published | None:
        if tag is not None and self._move(history, tag, version, by) is None:
            return None
        return Published(version, created=False)

    def _move(self, history: History, tag: str, version: VersionRecord, by: str | None) -> TagRecord | None:
        """The record that lets the tag stand at the version. None: overtaken."""
        value = history.value(tag)
        if value is not None and value.version == version.number:
            return value
        record = _tag_record(tag, version, history.next_move(tag), by)
        return record if self._append_move("tag", history, version.name, record) else None

    def _append_move(self, action: str, history: History, name: str, record: TagRecord) -> bool:
        """Write the move of a tag to a version that is there. False: overtaken."""
        if not self._append(history.tag_folder(record.tag), record):
            return False
        subject = {"name": name, "tag": record.tag, "version": record.version}
        self.audit.note(action, subject, evidence(history.tag_folder(record.tag), record), record.by)
        return True

    def _announce(self, history: History, tag: str, version: VersionRecord) -> dict[str, str]:
        """Write the move of a tag to a version that is yet to come, and return the `evidence`.

        Its place among others does not matter.
        """
        record = _tag_record(tag, version, history.next_move(tag), version.by)
        while not self._append(history.tag_folder(tag), record):
            record = replace(record, number=record.number + 1)
        return evidence(history.tag_folder(tag), record)

    def _append(self, folder: str, record: Record) -> bool:
        self.prepare()
        try:
            return self._journal.append(folder, record)
        finally:  # also where it is not known to be durable
            self.changes = next(self._numbers)

    def _check_known(self, history: History, name: str) -> None:
        if history.name != name:
            self._objects.check()
            raise AdapterNotFound(name, self.nearest(name))

    def _history(self, folder: str) -> History:
        return History(self._journal, folder)

    def nearest(
        self,
        name: str,
        among: Callable[[str], bool] | None = None,
        folded: Callable[[str], bool] | None = None,
    ) -> list[str]:
        """The names most similar to one, best first, of those for which `among` says so; few are read."""
        most = 2 * _NEAREST if among is None else _SHORTLIST
        wanted = folder_of(name).removeprefix("names/")
        similar = difflib.get_close_matches(wanted, _shortlist(wanted, self._listed(folded)), n=most)
        spelled = (name for name in map(self._spelling, similar) if name is not None)
        return list(itertools.islice(filter(among or bool, spelled), _NEAREST))

    def _listed(self, folded: Callable[[str], bool] | None) -> list[str]:
        """The folders of names, of those for which `folded` says so in lower case."""
        folders = self._objects.list("names")
        return folders if folded is None else [each for each in folders if folded(each.replace("!", "/"))]

    def _spelling(self, folder: str) -> str | None:
        """How a name is spelled that has a live version. A damaged record hides its own name, and no others."""
        try:
            return self._history(f"names/{folder}").name
        except DamagedRecord as error:
            if error.path not in self._told:
                log.error("a name is left out of lists: %s", error)
            self._told.add(error.path)
            return None


def _shortlist(wanted: str, names: list[str]) -> list[str]:
    """Those that have most pairs of letters in common with `wanted`: comparing thousands closely takes a second."""
    pairs = {wanted[index : index + 2] for index in range(len(wanted) - 1)}
    return heapq.nlargest(_SHORTLIST, names, key=lambda name: sum(pair in name for pair in pairs))


def _select(history: History, version: Version) -> VersionRecord | None:
    match version:
        case int():
            return history.version(version)
        case Tag():
            value = history.value(version.name)
            return history.version(value.version) if value else None
        case Digest():
            found = history.with_digest(version.prefix)
            return found[0] if len({record.digest for record in found}) == 1 else None


def _check_spelling(history: History, name: str) -> None:
    if history.name is not None and history.name != name:
        raise NameTaken(name, history.name)


def _no_version(history: History, name: str, version: str) -> VersionNotFound:
    return VersionNotFound(name, version, [*map(str, history.live[-8:]), *history.tags()])


def _tag_record(tag: str, version: VersionRecord, number: int, by: str | None) -> TagRecord:
    return TagRecord(
        number=number,
        by=by,
        tag=tag,
        version=version.number,
        version_id=version.id,
        digest=version.digest,
    )


def _back_to(earlier: TagRecord, number: int) -> TagRecord:
    """A move to where an earlier one led."""
    return TagRecord(
        number=number,
        tag=earlier.tag,
        version=earlier.version,
        version_id=earlier.version_id,
        digest=earlier.digest,
        restores=earlier.restores or earlier.number,
    )
