"""Verified directories of adapters, for the length of a lease, and the quarantine of those that are damaged."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from loraloom.adapters.errors import DamagedBlob
from loraloom.adapters.store import Store
from loraloom.adapters.store.disk import reporting

log = logging.getLogger("vllm.loraloom.blobs")

Signature = tuple[tuple[int, int, int], ...]

_AGAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class _Damage:
    """What was found of damaged files.

    Attributes:
        signature: theirs, so that they are not read again before they change; None where a look costs nothing, as
            when one is missing, or where they are not at hand.
        until: when files that are not at hand are fetched again.
    """

    reason: str
    signature: Signature | None
    until: float


class VerifiedBlobs:
    """Hands out a store's directories after checking their digest.

    A directory is hashed before its first use and again whenever one of its files is no longer the same file of the
    same size and time, so that damage behind the server's back is found before the engine reads it.

    What is damaged is in quarantine: it is not hashed again before its files change, as they do when it is published
    again. Behind a URL nothing tells that they have changed, so there it is fetched again after a while.
    """

    def __init__(self, store: Store, again: float = _AGAIN_S, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            store: where the files are.
            again: seconds after which a remote store is asked again for what was damaged.
            clock: seconds.
        """
        self._store = store
        self._again = again
        self._clock = clock
        self._verified: dict[str, Signature] = {}
        self._damaged: dict[str, _Damage] = {}
        self._lock = threading.Lock()

    @property
    def quarantined(self) -> Mapping[str, str]:
        """What is wrong with each digest that was found damaged, and has not been found whole since."""
        with self._lock:
            return {digest: damage.reason for digest, damage in self._damaged.items()}

    def acquire(self, digest: str) -> Path:
        """The directory of an adapter's normal form, verified and kept until `release`.

        Raises:
            DamagedBlob: files are missing, or their bytes have changed.
            StoreError: they cannot be looked at now, which says nothing of them.
        """
        self._refuse_unless_due(digest)
        with reporting(f"the store {self._store.url}"):
            folder = self._acquire(digest)
            try:
                self._verify(digest, folder)
            except BaseException:
                self._store.release(digest)
                raise
        return folder

    def release(self, digest: str) -> None:
        """The directory is no longer needed."""
        self._store.release(digest)

    def _acquire(self, digest: str) -> Path:
        try:
            return self._store.acquire(digest)
        except DamagedBlob as error:
            self._condemn(error, None)
            raise

    def _verify(self, digest: str, folder: Path) -> None:
        signature = None
        try:
            signature = _signature(digest, folder)
            if self._is_known_whole(digest, signature):
                return
            self._store.check(digest)
        except DamagedBlob as error:
            self._condemn(error, signature if self._store.local else None)
            raise
        with self._lock:
            self._verified[digest] = signature
            healed = self._damaged.pop(digest, None)
        if healed:
            log.warning("the stored adapter sha256:%s is whole again", digest[:12])

    def _is_known_whole(self, digest: str, signature: Signature) -> bool:
        """Whether these very files were found whole; raises `DamagedBlob` if they were found damaged."""
        with self._lock:
            damage, verified = self._damaged.get(digest), self._verified.get(digest)
        if damage is not None and damage.signature == signature:
            raise DamagedBlob(digest, damage.reason)
        return damage is None and verified == signature

    def _refuse_unless_due(self, digest: str) -> None:
        with self._lock:
            damage = self._damaged.get(digest)
        if damage is not None and not self._store.local and self._clock() < damage.until:
            raise DamagedBlob(digest, damage.reason)

    def _condemn(self, error: DamagedBlob, signature: Signature | None) -> None:
        damage = _Damage(error.reason, signature, self._clock() + self._again)
        with self._lock:
            before = self._damaged.get(error.digest)
            self._damaged[error.digest] = damage
        if before is None or before.reason != damage.reason:
            log.error("in quarantine: %s", error)


def _signature(digest: str, folder: Path) -> Signature:
    """What changes with the files, and with what else is in their folder."""
    try:
        stats = [(folder / name).stat() for name in ("adapter_config.json", "adapter_model.safetensors", "")]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamagedBlob(digest, f"{Path(error.filename).name} cannot be read ({error.strerror})") from error
    return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)
