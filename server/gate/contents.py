"""What an adapter in flight consists of: a stored version, or a mixture of some."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from loraloom.adapters.mixtures.recipe import Recipe
from loraloom.server.gate.blobs import VerifiedBlobs
from loraloom.server.gate.mixtures import Mixtures

Content: TypeAlias = str | Recipe
"""The digest of a stored normal form, or the recipe of a mixture."""


@dataclass(frozen=True)
class Contents:
    """Directories for contents of both kinds; every call may block."""

    stored: VerifiedBlobs
    mixtures: Mixtures

    def acquire(self, content: Content) -> Path:
        """A verified directory, kept until `release`."""
        return self.mixtures.acquire(content) if isinstance(content, Recipe) else self.stored.acquire(content)

    def release(self, content: Content) -> None:
        """The directory is no longer needed."""
        if isinstance(content, Recipe):
            self.mixtures.release(content)
        else:
            self.stored.release(content)
