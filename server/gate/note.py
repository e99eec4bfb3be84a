"""A small file that says which adapters were in memory, for the server that starts next."""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from loraloom.adapters.store import Store
from loraloom.server.settings import Settings

log = logging.getLogger("vllm.loraloom.note")


class Note:
    """Canonical names, most recently used first. What cannot be read or written is told, and does no harm."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    @classmethod
    def of(cls, settings: Settings, store: Store, base: str) -> "Note":
        """The note of a server: of one store, base model and port."""
        key = hashlib.sha256("\n".join((store.url, base, str(settings.port))).encode()).hexdigest()
        return cls(settings.cache / "residents" / f"{key[:16]}.json")

    def read(self) -> list[str]:
        """The names; none if there is no note."""
        try:
            names = json.loads(self._path.read_bytes())["residents"]
            return [name for name in names if isinstance(name, str)]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, LookupError) as error:
            log.warning("%s cannot be read (%s): the server starts with no adapter in memory", self._path, error)
            return []

    def write(self, names: Sequence[str]) -> None:
        """Replace the names, in one step."""
        new = self._path.with_suffix(".new")
        try:
            with self._lock:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                new.write_text(json.dumps({"residents": list(names)}, indent=1))
                os.replace(new, self._path)
        except OSError as error:
            log.warning("%s cannot be written (%s): a restart will not bring back these adapters", self._path, error)
