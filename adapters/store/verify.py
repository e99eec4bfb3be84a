"""Finding what is damaged in a store."""

from collections.abc import Iterator, Mapping

from loraloom.adapters.errors import DamagedBlob, StoreError
from loraloom.adapters.store.bundles import Bundles
from loraloom.adapters.store.facts import Facts
from loraloom.adapters.store.history import History
from loraloom.adapters.store.journal import Journal, record_path
from loraloom.adapters.store.objects import Objects
from loraloom.adapters.store.records import Finding, PinRecord, Record, RemovalRecord, TagRecord, VersionRecord


def verify_name(objects: Objects, folder: str) -> list[Finding]:
    """Read again everything that the live versions under one name consist of."""
    journal = Journal(objects)
    if damaged := list(_damaged_records(journal, folder)):
        return damaged
    history = History(journal, folder)
    facts = Facts(objects)
    damaged_facts = [finding for version in history.versions() for finding in facts.damaged(version.digest)]
    return [*_damaged_bundles(objects, history), *damaged_facts, *_unfinished_moves(journal, history)]


def damaged_pins(objects: Objects) -> list[Finding]:
    """The records of pins that cannot be read."""
    journal = Journal(objects)
    folders = {f"pins/{name}": PinRecord for name in objects.list("pins")}
    return list(_unreadable(journal, folders))


def damaged_keys(objects: Objects) -> list[Finding]:
    """The records of keys that cannot be read: a server keeps to the last one that it could."""
    folders: dict[str, type[Record]] = {f"keys/{name}": Record for name in objects.list("keys")}
    return list(_unreadable(Journal(objects), folders))


def _damaged_records(journal: Journal, folder: str) -> Iterator[Finding]:
    kinds: dict[str, type[Record]] = {f"{folder}/versions": VersionRecord, f"{folder}/removed": RemovalRecord}
    kinds |= {f"{folder}/tags/{tag}": TagRecord for tag in journal.objects.list(f"{folder}/tags")}
    return _unreadable(journal, kinds)


def _unreadable(journal: Journal, kinds: Mapping[str, type[Record]]) -> Iterator[Finding]:
    """The records in these folders that are not of the kind that belongs there."""
    for place, kind in kinds.items():
        for number in journal.numbers(place):
            try:
                journal.get(place, number, kind)
            except StoreError as error:
                yield Finding("damaged", record_path(place, number), str(error))


def _damaged_bundles(objects: Objects, history: History) -> Iterator[Finding]:
    for version in history.versions():
        for kind, digest in (("blobs", version.digest), ("originals", version.original)):
            try:
                Bundles(objects, kind).check(digest)
            except DamagedBlob as error:
                yield Finding("damaged", f"{kind}/{digest}", f"{version.name}@{version.number}: {error}")


def _unfinished_moves(journal: Journal, history: History) -> Iterator[Finding]:
    for tag in journal.objects.list(f"{history.folder}/tags"):
        place = history.tag_folder(tag)
        finished = {move.number for move in history.moves(tag)}
        for number in journal.numbers(place):
            if number not in finished:
                yield Finding("garbage", record_path(place, number), "left by a publication that did not finish")
