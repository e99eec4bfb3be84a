"""What is told of a damaged adapter: its name, and which version can be asked for. None is put in its place."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from loraloom.adapters.errors import AdapterError, DamagedBlob
from loraloom.adapters.mixtures.recipe import Recipe
from loraloom.adapters.names import Adapter, parse
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.access.view import View
from loraloom.server.errors import ServerError
from loraloom.server.gate.blobs import VerifiedBlobs
from loraloom.server.gate.exchange import Choice

_LOOKS = 4
"""Earlier versions that are read, to see whether they are whole."""


class Resolves(Protocol):
    """Tells what this server can serve; may block."""

    def resolve(self, adapter: Adapter, view: View) -> VersionRecord:
        """The version that an adapter stands for, if it can be served."""


@dataclass(frozen=True)
class Damage:
    """Explains damage to those who asked for what is damaged."""

    blobs: VerifiedBlobs
    selector: Resolves

    def explained(self, error: DamagedBlob, choice: Choice, view: View) -> DamagedBlob:
        """The error, in terms of what was chosen; may block, as it sees which version is whole.

        Args:
            choice: what was chosen: the damaged adapter, or a mixture in which it is.
            view: what the client sees.
        """
        try:
            adapter = _damaged_version(error, choice)
            if adapter is None:
                return error
            return DamagedBlob(error.digest, error.reason, str(adapter), self._advice(adapter, error.digest, view))
        except (AdapterError, ServerError):  # the store fails while we look: the damage is what to tell
            return error

    def _advice(self, adapter: Adapter, digest: str, view: View) -> str:
        whole = self._newest_whole(adapter, digest, view)
        if whole is None:
            return "Add it again to repair it: no earlier version is whole."
        tags = [tag for tag, number in view.tags(adapter.name).items() if number == adapter.version]
        instead = f"Ask for {whole.canonical!r}, the newest earlier version that is whole"
        if tags:
            tag = "latest" if "latest" in tags else tags[0]
            instead += f", or let {tag!r} stand there (`loraloom adapters tag {adapter.name} {tag} {whole.number}`)"
        return f"{instead}. Add it again to repair it."

    def _newest_whole(self, adapter: Adapter, digest: str, view: View) -> VersionRecord | None:
        records = [each for each in view.versions(adapter.name) if each.digest != digest]
        earlier = [each for each in records if each.number < int(str(adapter.version))]
        for record in reversed(earlier[-_LOOKS:]):
            with suppress(AdapterError, ServerError):
                self.selector.resolve(Adapter(record.name, record.number), view)
                self.blobs.acquire(record.digest)
                self.blobs.release(record.digest)
                return record
        return None


def _damaged_version(error: DamagedBlob, choice: Choice) -> Adapter | None:
    """The version whose files are damaged, of those that were chosen; None if it is none of them."""
    if isinstance(choice.content, Recipe):
        versions = [each.version for each in choice.content.ingredients if each.version.digest == error.digest]
        return Adapter(versions[0].name, versions[0].number) if versions else None
    target = parse(choice.model).target
    return target if isinstance(target, Adapter) and choice.content == error.digest else None
