"""The keys of a store, and every change of them.

    keys/<name>/000003.json    all of a key after its third change; the highest number counts

A key is as immutable as everything in a store: a change is a new record under the next number, and of two processes
that make one at the same moment, exactly one gets that number.
"""

import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from loraloom.adapters.errors import StoreError
from loraloom.adapters.store import Store
from loraloom.adapters.store.audit import evidence
from loraloom.adapters.store.history import next_number
from loraloom.adapters.store.layout import mark
from loraloom.server.access.access import ANONYMOUS, NOBODY
from loraloom.server.access.moments import moment_of, text_of
from loraloom.server.access.records import KeyRecord, Terms
from loraloom.server.access.secret import Stored, Token
from loraloom.server.errors import InvalidSettings

FOLDER = "keys"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = frozenset({ANONYMOUS, NOBODY.key})
_ATTEMPTS = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Issued:
    """A key with a new secret, which is known here and nowhere else.

    Attributes:
        text: what its holder sends. It is in no `repr`.
        first: whether there was no key before it.
    """

    record: KeyRecord
    text: str = field(repr=False)
    first: bool = False


class KeyRing:
    """The keys of a store. Thread-safe; raises `StoreError` where the store cannot be used.

    Args:
        clock: as `time.time`.

    Attributes:
        local: whether a look takes microseconds.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.local = store.local
        self._journal = store.journal()
        self._audit = store.audit
        self._clock = clock

    def all(self) -> list[KeyRecord]:
        """Every key as it is now, also those that were revoked, by name."""
        newest = self.newest()
        records = self.map(lambda name: self.read(name, newest[name]), newest)
        return sorted(records, key=lambda record: record.name.lower())

    def newest(self) -> dict[str, int]:
        """The number of the newest record of each key, by its name in small letters; one listing tells."""
        objects = self._journal.objects
        objects.check()
        objects.refresh(FOLDER)
        numbers = {name: self._journal.numbers(f"{FOLDER}/{name}") for name in objects.list(FOLDER)}
        return {name: found[-1] for name, found in numbers.items() if found}

    def read(self, name: str, number: int) -> KeyRecord:
        """A record that is known to exist, of the key of this name in small letters."""
        return self._journal.get(f"{FOLDER}/{name}", number, KeyRecord)

    def map(self, function: Callable[[str], T], names: Iterable[str]) -> Iterator[T]:
        """`map` over names, at a remote store several at once."""
        return self._journal.objects.map(function, names)

    def create(self, name: str, terms: Terms, by: str | None = None) -> Issued:
        """A new key. The name of a revoked one can be used again: nothing of the old key is valid then.

        Raises:
            InvalidSettings: there is such a key, or the name cannot be used.
        """
        _check_name(name)
        first = not self.newest()
        token = Token.new()

        def created(last: KeyRecord | None, number: int) -> KeyRecord:
            if last and not last.revoked:
                raise InvalidSettings(_taken(name, last.name))
            now = text_of(self._clock())
            secrets = (Stored.of(token),)
            return KeyRecord(
                number=number,
                created=now,
                name=name,
                action="create",
                since=self._since(last),
                terms=terms,
                secrets=secrets,
                by=by,
            )

        return Issued(self._change(name, created), token.text, first)

    def update(self, name: str, change: Callable[[Terms], Terms], by: str | None = None) -> KeyRecord:
        """Let a key do what `change` makes of its terms; its secret stays. Raises `InvalidSettings`: no such key."""

        def updated(last: KeyRecord, number: int) -> KeyRecord:
            return self._after(last, number, by, action="update", terms=change(last.terms))

        return self._change_known(name, updated)

    def rotate(self, name: str, grace: int = 0, by: str | None = None) -> Issued:
        """A new secret for a key; those before it end after `grace` seconds, or at once.

        Raises:
            InvalidSettings: there is no such key, or somebody else has rotated it at the same moment.
        """
        token = Token.new()
        seen: set[str] = set()

        def rotated(last: KeyRecord, number: int) -> KeyRecord:
            seen.add(last.key)
            if len(seen) > 1:
                # A second rotation would end the secret that the other has just been given.
                raise InvalidSettings(
                    f"somebody else has just rotated the key {name!r}: use their secret, or rotate it again"
                )
            secrets = (Stored.of(token), *self._replaced(last.secrets, grace))
            return self._after(last, number, by, action="rotate", secrets=secrets)

        return Issued(self._change_known(name, rotated), token.text)

    def revoke(self, name: str, by: str | None = None) -> KeyRecord:
        """End a key for good. Raises `InvalidSettings`: there is no such key, or it was revoked before."""

        def revoked(last: KeyRecord, number: int) -> KeyRecord:
            return self._after(last, number, by, action="revoke", revoked=True)

        return self._change_known(name, revoked)

    def _since(self, last: KeyRecord | None) -> str:
        """When a new key begins: later than any before it of its name, which with this moment says what is its own."""
        now = self._clock()
        return text_of(now if last is None else max(now, moment_of(last.since) + 1))

    def _after(self, last: KeyRecord, number: int, by: str | None, **changes: Any) -> KeyRecord:
        now = text_of(self._clock())
        return replace(last, number=number, created=now, id=uuid.uuid4().hex, by=by, **changes)

    def _replaced(self, secrets: tuple[Stored, ...], grace: int) -> Iterator[Stored]:
        """The secrets before a new one: the latest, and those still in their grace; none gets a longer one by this."""
        now = self._clock()
        for stored in secrets:
            until = now + grace if stored.until is None else min(now + grace, moment_of(stored.until))
            if stored.until is None or (until > now and not stored.over):
                yield replace(stored, until=text_of(until), over=not grace)

    def _change_known(self, name: str, change: Callable[[KeyRecord, int], KeyRecord]) -> KeyRecord:
        def changed(last: KeyRecord | None, number: int) -> KeyRecord:
            if last is None or last.name != name:
                raise InvalidSettings(self._unknown(name, last))
            if last.revoked:
                raise InvalidSettings(f"the key {name!r} was revoked: `loraloom keys create` makes a new one")
            return change(last, number)

        _check_name(name)
        return self._change(name, changed)

    def _change(self, name: str, change: Callable[[KeyRecord | None, int], KeyRecord]) -> KeyRecord:
        """Write what `change` makes of the newest record of a key, under the number that it gets."""
        journal, key = self._journal, name.lower()
        folder = f"{FOLDER}/{key}"
        for _ in range(_ATTEMPTS):
            journal.objects.check()
            journal.objects.refresh(folder)
            numbers = journal.numbers(folder)
            number = next_number(numbers)
            record = change(self.read(key, numbers[-1]) if numbers else None, number)
            mark(journal.objects)
            if journal.append(folder, record):
                self._audit.note(f"key.{record.action}", record.subject, evidence(folder, record), record.by)
                return record
        raise StoreError(f"too many others change the key {name!r} in the store {journal.objects.url}: try again")

    def _unknown(self, name: str, other: KeyRecord | None) -> str:
        if other:
            return f"there is no key {name!r}: it is spelled {other.name!r}"
        names = [record.name for record in self.all() if not record.revoked]
        return f"there is no key {name!r}: there {'are ' + ', '.join(names) if names else 'is none'}"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.lower() in _RESERVED:
        raise InvalidSettings(
            f"a key cannot be called {name[:200]!r}: write a letter or digit, then at most 63 letters, digits, dots, "
            f"underscores and dashes, and not {' or '.join(sorted(_RESERVED))}"
        )


def _taken(name: str, existing: str) -> str:
    if name != existing:
        return f"the name {name!r} differs from that of the key {existing!r} only by case: choose another one"
    return f"there is a key {name!r} already: change it by `loraloom keys update` or `rotate`, or choose another name"
