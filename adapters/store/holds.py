"""Who relies on which digest of a remote store, where there are no locks: small objects in `holds/<digest>/`.

A publisher claims a digest first, and looks then whether somebody removes it; whoever removes it says so first, and
looks then whether somebody claims it. A storage shows at once what was written, so one of the two sees the other: then
the publisher waits, or the removal leaves the digest alone.

A hold that its process could not take back ends by its age: the clocks of all who write to the store have to agree
within half an hour.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from loraloom.adapters.errors import StoreError

FOLDER = "holds"
CLAIM_S = 24 * 3600.0
"""How long a claim counts; a publication takes less."""

REMOVAL_S = 3600.0
"""How long a removal counts; it ends itself after half of this."""

_CLAIM, _REMOVAL = "claim", "removal"
_LIFETIMES = {_CLAIM: CLAIM_S, _REMOVAL: REMOVAL_S}
_PATIENCE_S = 60.0
_LOOK_S = 0.5


class Holders(Protocol):
    """What holds are made of; see `Objects`."""

    def create(self, path: str, data: bytes) -> bool: ...
    def remove(self, path: str) -> None: ...
    def list(self, folder: str) -> list[str]: ...
    def refresh(self, folder: str) -> None: ...


class Holds:
    """The holds of a remote store.

    Args:
        clock: seconds since 1970.
        patience: seconds for which a publisher waits for a removal.
    """

    def __init__(self, objects: Holders, clock: Callable[[], float] = time.time, patience: float = _PATIENCE_S) -> None:
        self._objects = objects
        self._clock = clock
        self._patience = patience

    @contextmanager
    def kept(self, digests: Iterable[str]) -> Iterator[None]:
        """Within the block, nobody removes what these digests name.

        Raises:
            StoreError: somebody is removing it, and does not come to an end.
        """
        with ExitStack() as held:
            for digest in sorted(set(digests)):
                held.enter_context(self._hold(digest, _CLAIM))
                self._wait(digest)
            yield

    @contextmanager
    def removable(self, digests: Iterable[str]) -> Iterator[frozenset[str]]:
        """Those of the digests on which nobody relies, and can begin to within the block, for half of `REMOVAL_S`."""
        with ExitStack() as held:
            for digest in sorted(set(digests)):
                held.enter_context(self._hold(digest, _REMOVAL))
            self._objects.refresh(FOLDER)
            yield frozenset(digest for digest in digests if not self._is_held(digest, _CLAIM))

    def left_over(self) -> list[str]:
        """The paths of the holds that do not count any more."""
        folders = [f"{FOLDER}/{digest}" for digest in self._objects.list(FOLDER)]
        named = [(folder, name) for folder in folders for name in self._objects.list(folder)]
        return [f"{folder}/{name}" for folder, name in named if not self._is_alive(name)]

    @contextmanager
    def _hold(self, digest: str, kind: str) -> Iterator[None]:
        path = f"{FOLDER}/{digest}/{kind}-{self._clock():.0f}-{uuid.uuid4().hex}"
        self._objects.create(path, b"{}\n")
        try:
            yield
        finally:
            self._objects.remove(path)

    def _wait(self, digest: str) -> None:
        end = time.monotonic() + self._patience
        while True:
            self._objects.refresh(f"{FOLDER}/{digest}")
            if not self._is_held(digest, _REMOVAL):
                return
            if time.monotonic() > end:
                raise StoreError(
                    "the very same content is being removed from the store as garbage: try again when that is done "
                    f"(where it was killed, in {REMOVAL_S / 60:.0f} minutes)"
                )
            time.sleep(_LOOK_S)

    def _is_held(self, digest: str, kind: str) -> bool:
        names = self._objects.list(f"{FOLDER}/{digest}")
        return any(name.startswith(kind) and self._is_alive(name) for name in names)

    def _is_alive(self, name: str) -> bool:
        kind, _, rest = name.partition("-")
        began = rest.partition("-")[0]
        return began.isdigit() and self._clock() - int(began) < _LIFETIMES.get(kind, CLAIM_S)
