"""`loraloom keys …`: who may use the servers of a store, and for what. The servers follow within a second."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loraloom.server.access.access import Role
from loraloom.server.access.keyring import Issued, KeyRing
from loraloom.server.access.moments import end_of, moment_of, span_of
from loraloom.server.access.patterns import EVERYTHING, Patterns
from loraloom.server.access.records import KeyRecord, Terms
from loraloom.server.cli.options import configured, user
from loraloom.server.cli.tables import table
from loraloom.server.errors import InvalidSettings
from loraloom.server.store import open_store

Options = argparse.Namespace
Extra = Sequence[str]

_HEAD = ("NAME", "ID", "ROLE", "ADAPTERS", "PUBLISH", "LIMITS", "CREATED", "EXPIRES", "STATE")


def create(options: Options, _: Extra) -> int:
    """Make a key, and print its secret: on the standard output, nothing else is."""
    ring = _ring(options, create=True)
    if options.names is None:
        if options.role not in (Role.MONITOR.word, Role.ADMIN.word):
            raise InvalidSettings("say which adapters the key is for: --adapters 'team-a/*,public/*', or '*' for all")
        options.names = str(EVERYTHING)
    issued = ring.create(options.name, _changed(Terms(), options), user())
    _hand_over(issued, f"created the key {issued.record.name!r}: {_terms_text(issued.record.terms)}")
    if issued.first:
        _say("it is the first key of this store: its servers let nobody in without one from now on")
    return 0


def list_keys(options: Options, _: Extra) -> int:
    """One line a key, without its secret."""
    records = _ring(options).all()
    if options.json:
        print(json.dumps([record.public() for record in records], indent=2))
        return 0
    now = time.time()
    table(_HEAD, [_row(record, now) for record in records])
    return 0


def update(options: Options, _: Extra) -> int:
    """Change what a key may do; its secret stays."""
    record = _ring(options).update(options.name, lambda terms: _changed(terms, options), user())
    print(f"the key {record.name!r} is now: {_terms_text(record.terms)}")
    return 0


def rotate(options: Options, _: Extra) -> int:
    """Give a key a new secret, and print it; nothing else is on the standard output."""
    grace = span_of(options.grace) if options.grace else 0
    issued = _ring(options).rotate(options.name, grace, user())
    end = f"is valid until {issued.record.secrets[1].until}" if grace else "is not valid any more"
    _hand_over(issued, f"the key {issued.record.name!r} has a new secret; the one before it {end}")
    return 0


def revoke(options: Options, _: Extra) -> int:
    """End a key."""
    record = _ring(options).revoke(options.name, user())
    print(f"the key {record.name!r} is revoked")
    return 0


def _ring(options: Options, *, create: bool = False) -> KeyRing:
    return KeyRing(open_store(configured(options).settings, create=create))


def _hand_over(issued: Issued, text: str) -> None:
    print(issued.text, flush=True)
    _say(f"{text}\nthis is the only time that the secret is shown: keep it where only its holder can read it")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _changed(terms: Terms, options: Options) -> Terms:
    """The terms with what the options say; raises `InvalidSettings`."""
    given = {field: getattr(options, option) for field, (option, _) in _FIELDS.items()}
    read = {field: _FIELDS[field][1](text) for field, text in given.items() if text is not None}
    if not read:
        raise InvalidSettings("say what to change, such as --rpm 60; `loraloom keys update --help` has all there is")
    changed = replace(terms, **read)
    if not changed.may_publish and (options.publish or options.sources):
        raise InvalidSettings(f"a key with the role {changed.role} publishes nothing: add --role publish")
    return changed


def _patterns(text: str) -> tuple[str, ...]:
    return Patterns.parse(text).texts


def _sources(text: str) -> tuple[str, ...] | None:
    return None if text == "all" else tuple(part.strip() for part in text.split(",") if part.strip())


def _expires(text: str) -> str | None:
    return None if text == "never" else end_of(text, time.time())


def _limit(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isdecimal():
        raise InvalidSettings(f"{text[:200]!r} is no limit: write a whole number from 1, or none")
    return int(text)


_FIELDS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "role": ("role", str),
    "adapters": ("names", _patterns),
    "publish": ("publish", _patterns),
    "sources": ("sources", _sources),
    "expires": ("expires", _expires),
    "rpm": ("rpm", _limit),
    "tpm": ("tpm", _limit),
    "concurrency": ("concurrency", _limit),
}
"""The option that gives each field of the terms, and how its text is read."""


def _terms_text(terms: Terms) -> str:
    """What a key may do, in a line."""
    publishing = f", publishing under {_publish(terms)}" if terms.may_publish else ""
    expiry = "never expires" if terms.expires is None else f"expires at {terms.expires}"
    return f"{terms.role}, adapters {_names(terms.adapters)}{publishing}, limits {_limits(terms)}, {expiry}"


def _row(record: KeyRecord, now: float) -> tuple[str, ...]:
    terms = record.terms
    publish, expires = _publish(terms), terms.expires or "never"
    what = (terms.role, _names(terms.adapters), publish, _limits(terms))
    return (record.name, record.key, *what, record.since, expires, _state(record, now))


def _names(texts: tuple[str, ...]) -> str:
    return ",".join(texts) or "none"


def _publish(terms: Terms) -> str:
    return _names(terms.adapters if terms.publish is None else terms.publish) if terms.may_publish else "-"


def _limits(terms: Terms) -> str:
    limits = {"rpm": terms.rpm, "tpm": terms.tpm, "concurrency": terms.concurrency}
    return " ".join(f"{name}={limit}" for name, limit in limits.items() if limit is not None) or "none"


def _state(record: KeyRecord, now: float) -> str:
    if record.revoked:
        return "revoked"
    if record.terms.expires is not None and moment_of(record.terms.expires) <= now:
        return "expired"
    former = [each.until for each in record.secrets if each.until and not each.over and moment_of(each.until) > now]
    return f"valid, the former secret until {max(former)}" if former else "valid"
