"""The keys as a running server knows them: which secret stands for which access, now.

The table is read whole when it is made, and follows the store from then on. It only moves forward: a store that cannot
be read, a record that is damaged or gone, leaves what was known before. So a server neither lets somebody in because
its keys cannot be read, nor shuts somebody out; but it learns of no revocation until they can be read again.

Expiry goes by the clock of the server's machine, looked at anew for each request. Where that clock jumps ahead, keys
expire early until it is put right; where it jumps back, a key that has expired is valid again until its time comes once
more. A secret that was replaced at once, and a key that was revoked, are over whatever the clock says.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from loraloom.adapters.errors import StoreError
from loraloom.server.access.access import ANYONE, Access
from loraloom.server.access.keyring import KeyRing
from loraloom.server.access.moments import moment_of
from loraloom.server.access.presented import secret_of
from loraloom.server.access.records import KeyRecord
from loraloom.server.access.secret import NOBODY, Check, Stored, Token
from loraloom.server.errors import Unauthenticated

LOCAL_PAUSE_S = 0.3
REMOTE_PAUSE_S = 1.0

_NO_KEY = (
    "no key was sent: send yours as the header `Authorization: Bearer ll_…` or `x-api-key: ll_…`. Whoever runs this "
    "server makes one by `loraloom keys create`"
)
_NOT_VALID = "this is not a valid key: see that you send all of it, and to the server that it is for"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Held:
    """One secret, and what it stands for.

    Attributes:
        until: seconds since 1970, after which it is over; infinite if it is not to end.
        over: why it is refused after that; told to who has the secret, and nobody else.
    """

    check: Check
    access: Access
    until: float
    over: str


class KeyTable:
    """Who asks, by what they send. Thread-safe.

    Args:
        ring: the keys of the store; all of them are read at once.
        clock: as `time.time`.

    Raises:
        StoreError: they cannot be read.
    """

    def __init__(self, ring: KeyRing, clock: Callable[[], float] = time.time) -> None:
        self._ring = ring
        self._clock = clock
        self._numbers: dict[str, int] = {}
        self._by_key: dict[str, Mapping[str, _Held]] = {}
        self._held: Mapping[str, _Held] = {}
        self._temporary: dict[str, tuple[Check, Access]] = {}
        self._exists = False
        self._began = False
        self._in_trouble = False
        self.look()

    @property
    def in_force(self) -> bool:
        """Whether a key is needed: there is one in the store, or was, revoked ones included."""
        return self._exists

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> Access:
        """Who sends a request with these headers of ASGI; raises `Unauthenticated`."""
        return self.access_of(secret_of(headers))

    def access_of(self, presented: str | None) -> Access:
        """Who sends this key; `ANYONE` where there are no keys at all.

        Raises:
            Unauthenticated: no key, or none that is valid now. Why a key is over is told to who has its secret only.
        """
        token = None if presented is None else Token.parse(presented)
        if token and (access := self._temporary_access(token)):
            return access
        if not self._exists:
            return ANYONE
        if token is None:
            raise Unauthenticated(_NOT_VALID if presented else _NO_KEY)
        held = self._held.get(token.id)
        known = (held.check if held else NOBODY).passes(token.secret)
        if held is None or not known:
            raise Unauthenticated(_NOT_VALID)
        if self._clock() >= held.until:
            raise Unauthenticated(held.over)
        return held.access

    @contextmanager
    def temporary(self, access: Access) -> Iterator[str]:
        """A key that is kept in memory only, and is accepted within the block; also where no keys are in force.

        Once the key whose access this is has been revoked, or has expired, this one is over too.
        """
        token = Token.new()
        self._temporary[token.id] = (Stored.of(token).check(), access)
        try:
            yield token.text
        finally:
            del self._temporary[token.id]

    async def run(self) -> NoReturn:
        """Follow the changes that others make, until it is cancelled."""
        pause = LOCAL_PAUSE_S if self._ring.local else REMOTE_PAUSE_S
        # A thread of its own: that a key is revoked must not wait for those that others keep busy.
        loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, "loraloom-keys")
        while True:
            await asyncio.sleep(pause)
            await loop.run_in_executor(thread, self.follow)

    def follow(self) -> None:
        """`look`, but a store that cannot be read is told in the log, once."""
        try:
            self.look()
        except Exception as error:  # whatever it is: a table that follows no more would let revoked keys in for ever
            if not self._in_trouble:
                log.error("the keys cannot be read, so those that were known before stay in force: %s", error)
            self._in_trouble = True
        else:
            if self._in_trouble:
                log.warning("the keys can be read again")
            self._in_trouble = False

    def look(self) -> None:
        """Read what has changed.

        Raises:
            StoreError: something cannot be read; all that can is in force nevertheless.
        """
        newest = self._ring.newest()
        try:
            failures = self._read_changed(newest)
        finally:
            # Only now, so that no key is refused in between because it has not been read yet.
            if newest and not self._exists and self._began:
                log.warning("there are keys now: nobody comes in without one. Shares of keys count from the next start")
            self._exists, self._began = self._exists or bool(newest), True
        lost = [name for name, number in self._numbers.items() if newest.get(name, 0) < number]
        if failures or lost:
            raise failures[0] if failures else StoreError(f"the records of the key {lost[0]!r} are gone: restore them")

    def _read_changed(self, newest: Mapping[str, int]) -> list[StoreError]:
        """Put in force what is newer than what is known; returns why some of it cannot be."""
        changed = [name for name, number in newest.items() if number > self._numbers.get(name, 0)]
        failures = [error for error in self._ring.map(lambda name: self._read(name, newest[name]), changed) if error]
        if len(failures) < len(changed):
            self._held = {id: held for each in self._by_key.values() for id, held in each.items()}
        return failures

    def _read(self, name: str, number: int) -> StoreError | None:
        """Put a key's newest record in force; returns why that cannot be."""
        try:
            record = self._ring.read(name, number)
        except StoreError as error:
            return error
        self._by_key[name] = _held_of(record)
        self._numbers[name] = number
        return None

    def _temporary_access(self, token: Token) -> Access | None:
        check, access = self._temporary.get(token.id, (None, None))
        if check is None or access is None or not check.passes(token.secret):
            return None
        return None if self._is_over(access) else access

    def _is_over(self, access: Access) -> bool:
        """Whether a key was in force, and no secret of it is any more: then nothing goes on in its name."""
        held = self._by_key.get(access.key.lower())
        if held is None:
            return False
        return all(each.access.owner != access.owner or self._clock() >= each.until for each in held.values())


def _held_of(record: KeyRecord) -> dict[str, _Held]:
    """Each secret of a key, by its id."""
    access = record.terms.access(record.name, record.since)
    return {stored.id: _Held(stored.check(), access, *_end(record, stored)) for stored in record.secrets}


def _end(record: KeyRecord, stored: Stored) -> tuple[float, str]:
    """When a secret is over, and what is said then."""
    key, terms = f"the key {record.name!r}", record.terms
    expires = math.inf if terms.expires is None else moment_of(terms.expires)
    replaced = math.inf if stored.until is None else moment_of(stored.until)
    if record.revoked:
        return -math.inf, f"{key} was revoked: ask whoever runs this server for another"
    if stored.over or replaced < expires:
        return -math.inf if stored.over else replaced, f"this secret of {key} has been replaced: send the new one"
    return expires, f"{key} expired at {terms.expires}: ask whoever runs this server to prolong it"
