"""`loraloom adapters …` on what is in the store already, with the server running or not."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from loraloom.adapters.names import check_name, parse_adapter
from loraloom.adapters.store import Store
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.cli.compose_text import composed_text
from loraloom.server.cli.fact_text import fact_text
from loraloom.server.cli.options import configured, user
from loraloom.server.cli.tables import table
from loraloom.server.store import open_store

Options = argparse.Namespace
Extra = Sequence[str]


def list_adapters(options: Options, _: Extra) -> int:
    """One line an adapter."""
    store = _store(options)
    names = store.names()
    if options.json:
        listed = [{"name": name, "tags": store.tags(name), "pins": _pins(store, name)} for name in names]
        print(json.dumps(listed, indent=2))
        return 0
    rows = [
        (name, str(len(store.versions(name))), _tags(store.tags(name).items()), ", ".join(_pins(store, name)))
        for name in names
    ]
    table(("NAME", "VERSIONS", "TAGS", "PINS"), rows)
    return 0


def show(options: Options, _: Extra) -> int:
    """Versions, tags with their history, pins, provenance, and what was measured."""
    store = _store(options)
    name = check_name(options.name)
    versions = store.versions(name)
    if options.json:
        value = {
            "name": name,
            "tags": store.tags(name),
            "pins": _pins(store, name),
            "versions": [asdict(version) | {"facts": store.facts(version.digest)} for version in versions],
        }
        print(json.dumps(value, indent=2))
        return 0
    rows = [_version_row(version) for version in versions]
    table(("VERSION", "DIGEST", "RANK", "BASE", "CREATED", "BY"), rows)
    for tag, number in store.tags(name).items():
        history = " -> ".join(str(record.version) for record in store.tag_history(name, tag))
        print(f"{tag}: {number}  (history: {history})")
    if pins := _pins(store, name):
        print(f"pinned: {', '.join(pins)}")
    for version in versions:
        if text := composed_text(version.provenance):
            print(f"{version.canonical} {text}")
        elif version.provenance:
            print(f"{version.canonical} provenance: {json.dumps(version.provenance)}")
        for kind, fact in store.facts(version.digest).items():
            print(f"{version.canonical} {kind}: {fact_text(kind, fact)}")
    return 0


def verify(options: Options, _: Extra) -> int:
    """Read everything again; status 1 when something is damaged."""
    findings = _store(options).verify(check_name(options.name) if options.name else None)
    for finding in findings:
        print(f"{finding.kind}: {finding.path}: {finding.detail}")
    count = Counter(finding.kind for finding in findings)
    facts = f", {count['fact']} unreadable facts" if count["fact"] else ""
    print(f"{count['damaged']} damaged, {count['garbage']} left over by killed writers{facts}")
    return 1 if count["damaged"] else 0


def gc(options: Options, _: Extra) -> int:
    """Remove what no live version needs and nobody uses."""
    number = size = 0
    for each in _store(options).collect(dry_run=options.dry_run):
        print(f"{'would remove' if options.dry_run else 'removed'} {each.path}  {each.size} bytes")
        number, size = number + 1, size + each.size
    print(f"{number} {'to remove' if options.dry_run else 'removed'}, {size} bytes")
    return 0


def export(options: Options, _: Extra) -> int:
    """Write one version as a plain folder for peft and vLLM."""
    from loraloom.adapters.store.export import export

    store = _store(options)
    record = store.resolve(parse_adapter(options.adapter))
    export(store, record, options.folder)
    print(f"wrote {record.canonical} to {options.folder}")
    return 0


def tag(options: Options, _: Extra) -> int:
    """Move a tag."""
    record = _store(options).tag(check_name(options.name), options.tag, options.version, by=user())
    print(f"{options.name}@{options.tag} is now version {record.version}")
    return 0


def rollback(options: Options, _: Extra) -> int:
    """Move a tag back."""
    record = _store(options).rollback(check_name(options.name), options.tag, by=user())
    print(f"{options.name}@{options.tag} is version {record.version} again")
    return 0


def pin(options: Options, _: Extra) -> int:
    """Keep an adapter in the memory of servers."""
    store = _store(options)
    adapter = parse_adapter(options.adapter)
    added = store.pin(adapter, by=user())
    print(f"{adapter} {'is pinned' if added else 'was pinned already'}: now {store.resolve(adapter).canonical}")
    return 0


def unpin(options: Options, _: Extra) -> int:
    """End a pin; status 1 when there is none."""
    store = _store(options)
    adapter = parse_adapter(options.adapter)
    if store.unpin(adapter, by=user()):
        print(f"{adapter} is not pinned any more")
        return 0
    pins = ", ".join(_pins(store, adapter.name)) or "nothing"
    print(f"loraloom: {adapter} is not pinned; of {adapter.name!r}, {pins} is", file=sys.stderr)
    return 1


def remove(options: Options, _: Extra) -> int:
    """Remove a version, or all of them."""
    store = _store(options)
    adapter = parse_adapter(options.adapter)
    number = store.resolve(adapter).number if "@" in options.adapter else None
    removed = store.remove(adapter.name, number, by=user())
    print(f"removed {', '.join(f'{adapter.name}@{number}' for number in removed.versions)}")
    for moved, now in removed.tags.items():
        print(f"{adapter.name}@{moved} is {'gone' if now is None else f'now version {now}'}")
    return 0


def _store(options: Options) -> Store:
    return open_store(configured(options).settings, create=False)


def _tags(tags: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{tag}={number}" for tag, number in tags)


def _pins(store: Store, name: str) -> list[str]:
    return [str(adapter) for adapter in store.pins_of(name)]


def _version_row(record: VersionRecord) -> tuple[str, ...]:
    base = record.base_name or "-"
    return (str(record.number), record.digest[:12], str(record.rank), base, record.created, record.by or "-")
