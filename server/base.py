"""The served base model, and which stored adapters fit it."""

import threading

from loraloom.adapters.base import BaseFingerprint, check_fits
from loraloom.adapters.errors import BaseMismatch
from loraloom.adapters.store import Store
from loraloom.adapters.store.records import VersionRecord


class ServedBase:
    """The base model that this server runs.

    Attributes:
        name: how requests select it.
        fingerprint: its modules' shapes and its tokenizer.
    """

    def __init__(self, name: str, fingerprint: BaseFingerprint, store: Store) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self._store = store
        self._fitting: set[str] = set()
        self._lock = threading.Lock()

    def check(self, record: VersionRecord) -> None:
        """Whether an adapter fits; one that was published for this very base is known to.

        Raises:
            BaseMismatch: it was published for another base, or its modules or shapes are not this one's.
        """
        if record.base == self.fingerprint.digest or record.digest in self._fitting:
            return
        if record.base is not None:
            raise BaseMismatch(
                f"adapter {record.canonical!r} was published for the base {record.base_name or record.base[:12]!r}, "
                f"whose modules or tokenizer differ from those of the served {self.name!r}: serve its own base, or add "
                "it again with --base naming this one, if it fits"
            )
        check_fits(self._store.manifest(record.digest), self.fingerprint)
        with self._lock:
            self._fitting.add(record.digest)
