"""The store as one key sees it: what it may not see does not exist, and cannot be told from what does not."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from loraloom.adapters.errors import AdapterNotFound, NameTaken, VersionNotFound
from loraloom.adapters.manifest import Manifest
from loraloom.adapters.names import Adapter
from loraloom.adapters.store.records import Removed, TagRecord, VersionRecord
from loraloom.server.access.access import Access
from loraloom.server.errors import Forbidden

T = TypeVar("T")


class Shelf(Protocol):
    """What is seen of a store."""

    def manifest(self, digest: str) -> Manifest:
        """What a normal form consists of."""

    def check_free(self, name: str, tag: str | None = None) -> None:
        """See that something can be published under a name, and with a tag."""

    def resolve(self, adapter: Adapter) -> VersionRecord:
        """The version that it stands for; raises `AdapterNotFound`, with the nearest of all names."""

    def names(self, folded: Callable[[str], bool]) -> Sequence[str]:
        """All names of those for which `folded` says so in lower case."""

    def versions(self, name: str) -> list[VersionRecord]:
        """Those of a name; raises `AdapterNotFound`."""

    def tags(self, name: str) -> dict[str, int]:
        """Those of a name; raises `AdapterNotFound`."""

    def tag(self, name: str, tag: str, version: int, *, by: str | None) -> TagRecord:
        """Let a tag stand at a version; raises `AdapterNotFound`."""

    def remove(self, name: str, version: int | None, *, by: str | None) -> Removed:
        """Remove one version, or all; raises `AdapterNotFound`."""

    def nearest(self, name: str, among: Callable[[str], bool], folded: Callable[[str], bool]) -> Sequence[str]:
        """The names most like this one, of those for which `among` says so, and `folded` of them in lower case."""


class View:
    """Looks things up for one key. Its methods may block, and raise as those of `Store`.

    Args:
        store: what is seen of.
        who: tells what the key may do at each look, since that may change while a request's body comes.
    """

    def __init__(self, store: Shelf, who: Callable[[], Access]) -> None:
        self._store = store
        self._who = who

    @property
    def access(self) -> Access:
        """What the key may do now."""
        return self._who()

    def manifest(self, digest: str) -> Manifest:
        """What the normal form of a version consists of that was seen before."""
        return self._store.manifest(digest)

    def check_free(self, name: str, tag: str | None = None) -> None:
        """See that the key can publish something under a name, and with a tag."""
        with self.publishing(name):
            self._store.check_free(name, tag)

    @contextmanager
    def publishing(self, name: str) -> Iterator[None]:
        """The block publishes under a name; of another spelling that the key does not see it is not told.

        Raises:
            Forbidden: it may not publish there.
            NameTaken: the name exists in another spelling.
        """
        self.check_may_create(name)
        try:
            yield
        except NameTaken as error:
            if error.existing is None or self.access.sees(error.existing):
                raise
            raise NameTaken(error.name) from error

    def resolve(self, adapter: Adapter) -> VersionRecord:
        """The version that an adapter stands for now; raises `AdapterNotFound`."""
        return self._found(adapter.name, lambda: self._store.resolve(adapter))

    def names(self) -> list[str]:
        """All names that it sees, in alphabetical order."""
        access = self.access
        return [name for name in self._store.names(access.may_see) if access.sees(name)]

    def versions(self, name: str) -> list[VersionRecord]:
        """The live versions of an adapter, oldest first; raises `AdapterNotFound`."""
        return self._found(name, lambda: self._store.versions(name))

    def tags(self, name: str) -> dict[str, int]:
        """The version at which each tag of an adapter stands; raises `AdapterNotFound`."""
        return self._found(name, lambda: self._store.tags(name))

    def tag(self, name: str, tag: str, version: int) -> TagRecord:
        """Let a tag of an adapter stand at a version; raises as `check_may_publish`, and `AdapterNotFound`."""
        self.check_may_publish(name)
        return self._found(name, lambda: self._store.tag(name, tag, version, by=self.access.key))

    def remove(self, name: str, version: int | None) -> Removed:
        """Remove one version of an adapter, or all; raises as `check_may_publish`, and `AdapterNotFound`."""
        self.check_may_publish(name)
        return self._found(name, lambda: self._store.remove(name, version, by=self.access.key))

    def check_seen(self, name: str) -> None:
        """Raise `AdapterNotFound` for a name that it does not see, whether or not there is one."""
        if not self.access.sees(name):
            raise self._missing(name)

    def check_may_publish(self, name: str) -> None:
        """Raise unless it may publish, tag and remove under a name.

        Raises:
            AdapterNotFound: the key publishes elsewhere, and sees nothing here.
            Forbidden: the key sees what is here, or would, and may not change it.
        """
        if self.access.may_publish(name):
            return
        self.check_seen(name)
        raise Forbidden(self._refusal(name))

    def check_may_create(self, name: str) -> None:
        """Raise `Forbidden` unless it may publish something new under a name; this says nothing of what is there."""
        if not self.access.may_publish(name):
            raise Forbidden(self._refusal(name))

    def _found(self, name: str, look: Callable[[], T]) -> T:
        """What a look-up gives; a name that is not there is refused as one that is not seen."""
        self.check_seen(name)
        try:
            return look()
        except VersionNotFound:
            raise
        except AdapterNotFound as error:
            raise self._missing(name) from error

    def _refusal(self, name: str) -> str:
        under = f"under {self.access.publish}" if self.access.publish.texts else "nothing"
        return f"the key {self.access.key!r} publishes {under}, so it may not change {name!r}"

    def _missing(self, name: str) -> AdapterNotFound:
        return AdapterNotFound(name, self._store.nearest(name, self.access.sees, self.access.may_see))
