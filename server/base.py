"""The served base model, and which stored adapters fit it; with proxy-tuning there are two."""

import threading
from collections.abc import Sequence

from loraloom.adapters.base import BaseFingerprint, check_fits
from loraloom.adapters.errors import BaseMismatch
from loraloom.adapters.manifest import Manifest
from loraloom.adapters.store import Store
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.errors import InvalidBody
from loraloom.server.settings import last_part


class ServedBase:
    """The base model that this server runs.

    Attributes:
        name: how requests select it.
        fingerprint: its modules' shapes and its tokenizer.
        model: its directory or Hugging Face id.
    """

    def __init__(self, name: str, fingerprint: BaseFingerprint, store: Store, model: str = "") -> None:
        self.name = name
        self.model = model
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

    @property
    def last_parts(self) -> set[str | None]:
        """What an adapter's configuration may call it, without folders or organisation."""
        return {self.name, _last_part(self.model)}

    @property
    def all(self) -> Sequence["ServedBase"]:
        """Every model whose adapters are served here."""
        return (self,)

    def named(self, name: str) -> "ServedBase":
        """One of these models by its name, or by its directory or id; raises `InvalidBody`."""
        found = next((each for each in self.all if name in (each.name, each.model)), None)
        if found is None:
            known = " and ".join(repr(each.name) for each in self.all)
            raise InvalidBody(f"this server serves adapters of {known}, and not of {name!r}", param="base")
        return found

    def owner(self, record: VersionRecord) -> "ServedBase":
        """The model that a stored adapter was trained on; raises `BaseMismatch` if that is none of these."""
        self.check(record)
        return self

    def owner_of_new(self, manifest: Manifest) -> "ServedBase":
        """The model that an adapter is to be published for, where the publication does not say.

        Raises:
            BaseMismatch: several are possible.
        """
        return self


class ServedPair(ServedBase):
    """A large model, and a small one whose adapters steer it.

    Attributes:
        small: the small model.
    """

    def __init__(self, large: ServedBase, small: ServedBase, store: Store) -> None:
        super().__init__(large.name, large.fingerprint, store, large.model)
        self.small = small
        self._owners: dict[tuple[str, str | None, str | None], ServedBase] = {}

    @property
    def all(self) -> Sequence[ServedBase]:
        """The large model, then the small one."""
        return (self, self.small)

    def check(self, record: VersionRecord) -> None:
        """Whether an adapter fits either; raises `BaseMismatch`."""
        self.owner(record)

    def steers(self, record: VersionRecord) -> bool:
        """Whether an adapter was trained on the small model; raises `BaseMismatch` as `owner` does."""
        return self.owner(record) is self.small

    def owner(self, record: VersionRecord) -> ServedBase:
        """The model that a stored adapter was trained on.

        Where both have the same modules, the name of the base that it was published with decides.

        Raises:
            BaseMismatch: it fits neither; or either, and does not name one of them.
        """
        key = record.digest, record.base, record.base_name
        owner = self._owners.get(key)
        if owner is None:
            owner = self._owners[key] = self._found_owner(record)
        return owner

    def _found_owner(self, record: VersionRecord) -> ServedBase:
        mismatches: list[str] = []
        fitting: list[ServedBase] = []
        for each, check in ((self, super().check), (self.small, self.small.check)):
            try:
                check(record)
                fitting.append(each)
            except BaseMismatch as error:
                mismatches.append(f"{each.name!r}: {error}")
        if not fitting:
            raise BaseMismatch(f"{record.canonical!r} fits neither model that is served here. {'; '.join(mismatches)}")
        if len(fitting) == 2:
            return self._named_by(record.base_name, f"adapter {record.canonical!r}")
        return fitting[0]

    def owner_of_new(self, manifest: Manifest) -> ServedBase:
        """The only one that it fits, or else the one that it names; see `ServedBase.owner_of_new`."""
        fitting = [each for each in self.all if _fits(manifest, each.fingerprint)]
        if len(fitting) == 2:
            return self._named_by(manifest.base_model, "this adapter")
        return fitting[0] if fitting else self  # which will say what does not fit

    def _named_by(self, base_name: str | None, what: str) -> ServedBase:
        """The one of both that an adapter names."""
        named = [each for each in self.all if _last_part(base_name) in each.last_parts]
        if len(named) != 1:
            raise BaseMismatch(
                f"{what} fits the large model {self.name!r} and the small one {self.small.name!r} alike: publish it "
                "with the field `base`, or add it with --base, naming the one that it was trained on"
            )
        return named[0]


def _fits(manifest: Manifest, base: BaseFingerprint) -> bool:
    try:
        check_fits(manifest, base)
    except BaseMismatch:
        return False
    return True


def _last_part(model: str | None) -> str | None:
    return last_part(model) if model else None
