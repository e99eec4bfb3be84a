"""`loraloom audit …`: who changed what in a store, and whether that log can be believed."""

import argparse
import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict

from loraloom.adapters.store import Store
from loraloom.adapters.store.audit import AuditEntry, Head
from loraloom.server.access.moments import moment_of, span_of, text_of
from loraloom.server.cli.options import configured, user
from loraloom.server.cli.tables import table
from loraloom.server.errors import InvalidSettings
from loraloom.server.store import open_store

Options = argparse.Namespace
Extra = Sequence[str]

_HEAD = re.compile(r"([1-9][0-9]*):([0-9a-f]{64})")


def list_entries(options: Options, _: Extra) -> int:
    """One line a change, oldest first."""
    since = _since(options.since) if options.since else ""
    found = [
        entry for entry in _store(options).audit.entries() if entry.created >= since and _is_wanted(entry, options)
    ]
    if options.json:
        print(json.dumps([asdict(entry) for entry in found], indent=2))
        return 0
    rows = [(str(entry.number), entry.created, entry.by or "-", entry.action, _subject(entry)) for entry in found]
    table(("NUMBER", "TIME", "BY", "ACTION", "SUBJECT"), rows)
    return 0


def verify(options: Options, _: Extra) -> int:
    """Read the log and all that it names again; status 1 when anything is not as it was written."""
    known = _known(options.head) if options.head else None
    audited = _store(options).audit.check(known)
    for finding in audited.findings:
        print(f"{finding.kind}: {finding.path}: {finding.detail}")
    if audited.unaudited:
        print("A change whose author died, or found the store full, has no entry: `loraloom audit adopt` adds one.")
    if audited.older:
        print(f"{len(audited.older)} records are from before the log began: `loraloom audit adopt` takes them into it")
    print(f"{audited.head.number} entries about {audited.records} records, {len(audited.findings)} findings")
    if audited.head.number:
        print(f"head {audited.head}")
    return 1 if audited.findings else 0


def adopt(options: Options, _: Extra) -> int:
    """Let the log name the records that no entry names."""
    store = _store(options)
    print(f"{store.audit.adopt(user())} records taken into the log")
    return 0


def _store(options: Options) -> Store:
    return open_store(configured(options).settings, create=False)


def _is_wanted(entry: AuditEntry, options: Options) -> bool:
    return (
        options.name in (None, entry.subject.get("name"))
        and options.action in (None, entry.action)
        and options.by in (None, entry.by)
    )


def _subject(entry: AuditEntry) -> str:
    """What was changed: `sql@4`, or the key's name, and then the rest."""
    rest = dict(entry.subject)
    words = [str(rest.pop("name"))] if "name" in rest else []
    return " ".join([*words, *(f"{key}={_value(value)}" for key, value in rest.items())])


def _value(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _since(text: str) -> str:
    try:
        return text_of(moment_of(text))
    except ValueError:
        return text_of(time.time() - span_of(text))


def _known(text: str) -> Head:
    match = _HEAD.fullmatch(text)
    if match is None:
        raise InvalidSettings(
            f"{text[:200]!r} is no end of a log: give NUMBER:HASH as `loraloom audit verify` printed it"
        )
    return Head(int(match[1]), match[2])
