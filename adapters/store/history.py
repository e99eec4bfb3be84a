"""What has happened under one name: its versions, its removals, and the moves of its tags."""

from collections.abc import Iterator

from loraloom.adapters.names import check_name
from loraloom.adapters.store.journal import Journal
from loraloom.adapters.store.records import RemovalRecord, TagRecord, VersionRecord


def folder_of(name: str) -> str:
    """Where the records of a name are; two names that differ only by case share it. Raises `InvalidName`."""
    return f"names/{check_name(name).lower().replace('/', '!')}"


class History:
    """One name, as it stands at the moment of construction.

    The versions are listed before anything else is read. The tags that a publication moves are written before its
    version is: so a version that is listed has all its tags, and records for one that is not are passed over.

    Attributes:
        live: the numbers of the versions that are not removed, ascending.
    """

    def __init__(self, journal: Journal, folder: str) -> None:
        self.folder = folder
        self._journal = journal
        self._numbers = journal.numbers(f"{folder}/versions")
        self._removals = journal.numbers(f"{folder}/removed")
        removed = {version for number in self._removals for version in self._removal(number).versions}
        self.live = [number for number in self._numbers if number not in removed]

    @property
    def name(self) -> str | None:
        """The name as its publishers spell it; None when it has no live version."""
        return self._record(self.live[-1]).name if self.live else None

    @property
    def end(self) -> int:
        """The number of the latest removal that left no version; 0 if there was none."""
        return max((number for number in self._removals if self._removal(number).last), default=0)

    @property
    def next_version(self) -> int:
        return next_number(self._numbers)

    @property
    def next_removal(self) -> int:
        return next_number(self._removals)

    def next_move(self, tag: str) -> int:
        return next_number(self._moves(tag))

    def version(self, number: int) -> VersionRecord | None:
        """The live version of that number."""
        return self._record(number) if number in self.live else None

    def versions(self) -> list[VersionRecord]:
        """The live versions, oldest first."""
        return [self._record(number) for number in self.live]

    def with_digest(self, prefix: str) -> list[VersionRecord]:
        """The live versions whose digest starts with `prefix`, oldest first."""
        return [version for version in self.versions() if version.digest.startswith(prefix)]

    def value(self, tag: str) -> TagRecord | None:
        """What the tag stands at: the newest of its records whose version is live."""
        return next(self._live_moves(tag), None)

    def tags(self) -> dict[str, int]:
        """The version of every tag that has one."""
        values = {tag: self.value(tag) for tag in sorted(self._journal.objects.list(f"{self.folder}/tags"))}
        return {tag: record.version for tag, record in values.items() if record}

    def moves(self, tag: str) -> list[TagRecord]:
        """The tag's history, oldest first, with moves to versions that have been removed since."""
        return list(self._valid_moves(tag))[::-1]

    def before(self, value: TagRecord) -> TagRecord | None:
        """What the tag stood at before `value`: another live version, the newest that has not been rolled back."""
        place = value.restores or value.number
        earlier = (move for move in self._live_moves(value.tag) if move.number < place)
        return next((move for move in earlier if move.version != value.version), None)

    def _live_moves(self, tag: str) -> Iterator[TagRecord]:
        return (move for move in self._valid_moves(tag) if move.version in self.live)

    def _valid_moves(self, tag: str) -> Iterator[TagRecord]:
        """From the newest back, without those of publications that never finished."""
        for number in reversed(self._moves(tag)):
            move = self._journal.get(self.tag_folder(tag), number, TagRecord)
            if move.version in self._numbers and self._record(move.version).id == move.version_id:
                yield move

    def tag_folder(self, tag: str) -> str:
        return f"{self.folder}/tags/{tag}"

    def _moves(self, tag: str) -> list[int]:
        return self._journal.numbers(self.tag_folder(tag))

    def _record(self, number: int) -> VersionRecord:
        return self._journal.get(f"{self.folder}/versions", number, VersionRecord)

    def _removal(self, number: int) -> RemovalRecord:
        return self._journal.get(f"{self.folder}/removed", number, RemovalRecord)


def next_number(numbers: list[int]) -> int:
    """The number of the record that follows those of these numbers, which are ascending."""
    return numbers[-1] + 1 if numbers else 1
