"""The store: every adapter that can be served, in one normal form, with its versions and tags.

    blobs/<digest>/…                     the normal form: what the engine loads
    originals/<digest>/…                 what was given, as given
    names/<name>/versions/000004.json    creating this is what publishes version 4
    names/<name>/tags/<tag>/000007.json  the tag's seventh move
    names/<name>/removed/000003.json     the third removal
    pins/<name>/000002.json              what is pinned under the name, after its second change
    keys/<name>/000003.json              a key, after its third change
    audit/000017.json                    who made the seventeenth change, and of which records it consists
    facts/<digest>/update.json           what was measured of a normal form
    locks/<digest>, holds/<digest>/…     who relies on a digest now, in a folder, and behind a URL
    store.json                           which layout this is

Every fact is an object of its own, created exclusively and never changed: so any number of processes and machines may
read and write, and one that dies leaves the state before or after its operation. Only `collect` removes anything:
what no live version names, and nobody uses or is about to name.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.errors import DamagedBlob, InvalidAdapter, StoreError
from loraloom.adapters.manifest import Manifest, read_manifest
from loraloom.adapters.names import Adapter, check_tag
from loraloom.adapters.store.auditor import Auditor
from loraloom.adapters.store.blobs import Blobs, LocalBlobs
from loraloom.adapters.store.facts import Fact, Facts
from loraloom.adapters.store.garbage import Collected, collect, find_garbage
from loraloom.adapters.store.journal import Journal
from loraloom.adapters.store.layout import has_mark
from loraloom.adapters.store.objects import LocalObjects, Objects
from loraloom.adapters.store.pins import Pins
from loraloom.adapters.store.publication import Publication, publish
from loraloom.adapters.store.records import Finding, Published, Removed, TagRecord, VersionRecord
from loraloom.adapters.store.registry import Registry
from loraloom.adapters.store.verify import damaged_keys, damaged_pins, verify_name


class Store:
    """Adapters under names, in versions, with movable tags. Thread-safe; all its errors are `AdapterError`s.

    Names are looked up as they are spelled, and no two differ only by case.

    Attributes:
        local: whether it is a folder on this machine, where a look-up takes microseconds.
        audit: who changed what, in a log that shows whether it was tampered with.
    """

    def __init__(self, objects: Objects, blobs: Blobs) -> None:
        self.local = isinstance(objects, LocalObjects)
        self._objects = objects
        self._blobs = blobs
        self._registry = Registry(objects)
        self._facts = Facts(objects)
        self._pins = Pins(objects, self._registry)
        self.audit = Auditor(objects, self._registry.audit)

    @classmethod
    def open(
        cls,
        url: str | Path,
        *,
        cache: Path | None = None,
        cache_bytes: int = 20 * 2**30,
        create: bool = True,
    ) -> "Store":
        """The store at a folder or an fsspec URL.

        Args:
            url: a path, or a URL such as `s3://bucket/prefix`.
            cache: where a remote store's adapters are kept on this machine; by default in the user's cache folder.
            cache_bytes: how much of them is kept.
            create: begin a new store if there is none.

        Raises:
            StoreError: there is none and `create` is False; or it cannot be used, and why.
        """
        text = str(url)
        if "://" in text and not text.startswith("file://"):
            return cls._open_remote(text, cache or Path.home() / ".cache/loraloom/adapters", cache_bytes, create)
        return cls._open_local(Path(text.removeprefix("file://")).expanduser().absolute(), create)

    @classmethod
    def _open_local(cls, root: Path, create: bool) -> "Store":
        objects = LocalObjects(root)
        if create:
            objects.begin()
        objects.check()
        has_mark(objects)
        return cls(objects, LocalBlobs(objects))

    @classmethod
    def _open_remote(cls, url: str, cache: Path, cache_bytes: int, create: bool) -> "Store":
        from loraloom.adapters.store.cache import CachedBlobs
        from loraloom.adapters.store.remote import RemoteObjects

        objects = RemoteObjects(url, cache)
        if not has_mark(objects) and not create:
            raise StoreError(f"there is no store at {url}: check the URL, or add an adapter to begin one")
        return cls(objects, CachedBlobs(objects, cache, cache_bytes))

    @property
    def url(self) -> str:
        return self._objects.url

    @property
    def changes(self) -> int:
        """Another number after each change of names, versions and tags that was made with this object."""
        return self._registry.changes

    def resolve(self, adapter: Adapter) -> VersionRecord:
        """The version that `adapter` stands for now.

        Raises:
            AdapterNotFound: no such name; with the nearest ones.
            VersionNotFound: the name has no such version, tag or digest; with those that it has.
        """
        return self._registry.resolve(adapter)

    def check_readable(self) -> None:
        """See that adapters can be looked up, by one look however many there are; raises `StoreError`."""
        self._objects.check()
        self._objects.refresh("names")
        self._objects.list("names")

    def names(self, folded: Callable[[str], bool] | None = None) -> list[str]:
        """All names that have a version, in alphabetical order.

        Args:
            folded: asked for them in lower case; only where it says so they are looked at.
        """
        return self._registry.names(folded)

    def nearest(self, name: str, among: Callable[[str], bool], folded: Callable[[str], bool]) -> list[str]:
        """The names most similar to one that is not there, best first, of those for which `among` says so.

        Args:
            name: which is not there.
            among: asked for names as they are spelled.
            folded: asked for them in lower case before that: only where it says so they are looked at, so that not even
                the time that this takes tells of others.
        """
        return self._registry.nearest(name, among, folded)

    def versions(self, name: str) -> list[VersionRecord]:
        """The versions of an adapter that have not been removed, oldest first; raises `AdapterNotFound`."""
        return self._registry.known(name).versions()

    def tags(self, name: str) -> dict[str, int]:
        """The version at which each tag of an adapter stands; raises `AdapterNotFound`."""
        return self._registry.known(name).tags()

    def tag_history(self, name: str, tag: str) -> list[TagRecord]:
        """All moves of a tag, oldest first, with those to versions that have been removed; raises `AdapterNotFound`."""
        return self._registry.known(name).moves(check_tag(tag))

    def publish(
        self,
        folder: Path,
        name: str,
        *,
        plain: Path | None = None,
        tag: str | None = None,
        base: BaseFingerprint | None = None,
        base_name: str | None = None,
        allow_noop: bool = False,
        by: str | None = None,
        provenance: Mapping[str, object] | None = None,
        facts: Mapping[str, Fact] = MappingProxyType({}),
    ) -> Published:
        """Store the adapter in `folder` as the next version of `name`, and move "latest" and `tag` to it.

        When a live version of that name has the same normal form already, it is returned, and only `tag` is moved.

        Args:
            plain: the plain LoRA into which it was converted, of which the normal form is made then; what is kept as
                the original is still `folder`.
            base: the base model, which the adapter must fit; None leaves it unbound.
            base_name: the base model's name; by default what the adapter says.
            allow_noop: accept an adapter that changes nothing.
            by: who publishes.
            provenance: where it comes from: anything that JSON can say.
            facts: what was measured of it, by kind; see `note_fact`. "update" is always noted.

        Raises:
            InvalidName, NameTaken: the name cannot be used.
            InvalidAdapter: the adapter is refused; also its subclasses UnsupportedAdapter and BaseMismatch.
            StoreError: it could not be written; what was there before is whole.
        """
        publication = Publication(
            folder=folder,
            name=name,
            plain=plain,
            tag=tag,
            base=base,
            base_name=base_name,
            allow_noop=allow_noop,
            by=by,
            provenance=provenance or {},
            facts=facts,
        )
        return publish(publication, self._objects, self._registry)

    def facts(self, digest: str) -> Mapping[str, Fact]:
        """What was measured of a normal form, by kind: "update", "conversion", "effect", …"""
        return self._facts.of(digest)

    def note_fact(self, digest: str, kind: str, value: Fact) -> bool:
        """Write down what was measured of a normal form, for people; False if there is such a fact, which stays.

        Args:
            kind: a word of small letters and "_".
            value: anything that JSON can say.
        """
        return self._facts.note(digest, kind, value)

    def collect(self, *, dry_run: bool = False) -> Iterator[Collected]:
        """Remove what no live version needs and nobody uses, a part at each step; `dry_run` only tells.

        Others may publish, remove and serve meanwhile, on any machine.

        Raises:
            StoreError: it cannot be written, or a record is damaged, so that what it names is unknown.
        """
        self._objects.check()
        return collect(self._objects, dry_run=dry_run)

    def check_free(self, name: str, tag: str | None = None) -> None:
        """See that something can be published under a name, and with a tag, before it is made.

        Raises:
            InvalidName, NameTaken: it cannot.
        """
        check_tag(tag or "latest")
        self._registry.check_free(name)

    def tag(self, name: str, tag: str, version: int, *, by: str | None = None) -> TagRecord:
        """Let a tag stand at a version, which must exist; raises `AdapterNotFound`, `VersionNotFound`."""
        return self._registry.tag(name, tag, version, by)

    def rollback(self, name: str, tag: str, *, by: str | None = None) -> TagRecord:
        """Let a tag stand where it stood before; a second rollback goes one further back.

        Raises:
            VersionNotFound: there is no such tag, or no earlier version left.
        """
        return self._registry.rollback(name, tag, by)

    def remove(self, name: str, version: int | None = None, *, by: str | None = None) -> Removed:
        """Remove one version, or all at once; their numbers are never used again.

        A tag that stood at one of them falls back to the newest version left in its history.

        Raises:
            AdapterNotFound, VersionNotFound: there is nothing to remove.
        """
        return self._registry.remove(name, version, by)

    def pins(self) -> list[Adapter]:
        """Every selection that is pinned, the oldest pin first; one may stand for no version any more."""
        return self._pins.all()

    def pins_of(self, name: str) -> list[Adapter]:
        """What is pinned under one name, the oldest pin first."""
        return self._pins.of(name)

    def pin(self, adapter: Adapter, *, by: str | None = None) -> bool:
        """Let servers keep in memory what a selection stands for, now and later; False if it is pinned already.

        Raises:
            AdapterNotFound, VersionNotFound: it stands for nothing now.
        """
        return self._pins.add(adapter, by)

    def unpin(self, adapter: Adapter, *, by: str | None = None) -> bool:
        """End a pin; False if there is none. Raises `AdapterNotFound` if there is no such name."""
        return self._pins.discard(adapter, by)

    def journal(self) -> Journal:
        """Numbered records of other kinds than those of adapters, in folders of their own beside them."""
        return Journal(self._objects)

    def acquire(self, digest: str) -> Path:
        """The local folder of a normal form, which stays there until `release`; a remote store downloads it first.

        Raises:
            DamagedBlob: files are missing, or a download does not match the digest.
        """
        return self._blobs.acquire(digest)

    def release(self, digest: str) -> None:
        """Give up one `acquire`."""
        self._blobs.release(digest)

    @contextmanager
    def leased(self, digest: str) -> Iterator[Path]:
        """`acquire`, and `release` at the end of the block."""
        folder = self.acquire(digest)
        try:
            yield folder
        finally:
            self.release(digest)

    def folder(self, digest: str) -> Path:
        """As `acquire`, for one look: a remote store may evict it again at any time."""
        with self.leased(digest) as folder:
            return folder

    def manifest(self, digest: str) -> Manifest:
        """What a stored normal form consists of; raises `DamagedBlob`."""
        with self.leased(digest) as folder:
            try:
                return read_manifest(folder)
            except InvalidAdapter as error:
                raise DamagedBlob(digest, str(error)) from error

    def check(self, digest: str) -> None:
        """Read all of a normal form again, here on this machine; a remote store downloads it anew if that is damaged.

        Raises:
            DamagedBlob: it is damaged in the store itself.
        """
        self._blobs.check(digest)

    def verify(self, name: str | None = None) -> list[Finding]:
        """Read all of one adapter, or of the whole store, again; returns what is wrong. Raises `AdapterNotFound`."""
        if name is not None:
            return verify_name(self._objects, self._registry.known(name).folder)
        self._objects.refresh("names")
        folders = [f"names/{folder}" for folder in sorted(self._objects.list("names"))]
        each_name = self._objects.map(lambda folder: verify_name(self._objects, folder), folders)
        beside = (*damaged_pins(self._objects), *damaged_keys(self._objects))
        findings = [*beside, *(finding for findings in each_name for finding in findings)]
        # What a damaged record refers to must not be called garbage.
        return findings if any(each.kind == "damaged" for each in findings) else findings + find_garbage(self._objects)
