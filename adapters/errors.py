"""Every error that the adapters package raises.

    AdapterError
    ├── InvalidName            (ValueError)   a name, version or mixture that does not follow the grammar
    ├── NameTaken              (ValueError)   the name exists in another spelling
    ├── AdapterNotFound        (LookupError)  no such name
    │   └── VersionNotFound                   the name exists, the version, tag or digest does not
    ├── InvalidAdapter         (ValueError)   the given files are refused: damaged, unsafe or meaningless
    │   ├── UnsupportedAdapter                sound, but of a kind that cannot be served
    │   │   └── ConversionTooRough            it can be converted, but not as closely as asked for
    │   └── BaseMismatch                      sound, but trained on another base model
    ├── InvalidMixture         (ValueError)   well-formed, but these adapters cannot be mixed in this way
    │   └── MixtureRankTooHigh                its rank is above the limit
    ├── InvalidBase            (ValueError)   the base model's own files cannot be read
    ├── SourceError            (OSError)      the adapter could not be fetched from where it was said to be
    └── StoreError             (OSError)      the store cannot be read or written
        ├── DamagedBlob                       stored bytes are missing or no longer match their digest
        └── DamagedRecord                     a record cannot be read, so what it is about is unknown

Each is also a builtin error, so that callers may catch either. Every message says what to do next.
"""

from collections.abc import Sequence


class AdapterError(Exception):
    """Base of every error of this package."""


class InvalidName(AdapterError, ValueError):
    """A selection that does not follow the grammar.

    Attributes:
        text: what was parsed.
        position: the index in `text` of the first character that does not fit.
        reason: what was expected there.
    """

    def __init__(self, text: str, position: int, reason: str) -> None:
        self.text = text
        self.position = position
        self.reason = reason
        super().__init__(f"{text[:200]!r} is not a valid selection: {reason} (at position {position})")


class NameTaken(AdapterError, ValueError):
    """The name exists already, spelled with other upper and lower case.

    Attributes:
        name: what was asked for.
        existing: how the name is spelled; None where whoever asks may not know.
    """

    def __init__(self, name: str, existing: str | None = None) -> None:
        self.name = name
        self.existing = existing
        if existing is None:
            super().__init__(f"the name {name!r} differs from an existing one only by case: choose another")
        else:
            super().__init__(f"the name {name!r} differs from the existing {existing!r} only by case: use {existing!r}")


class AdapterNotFound(AdapterError, LookupError):
    """No adapter of this name.

    Attributes:
        name: what was asked for.
        nearest: the most similar names that exist, best first.
    """

    def __init__(self, name: str, nearest: Sequence[str] = (), detail: str | None = None) -> None:
        self.name = name
        self.nearest = tuple(nearest)
        hint = f" Did you mean {', '.join(map(repr, self.nearest))}?" if self.nearest else ""
        super().__init__(detail or f"there is no adapter {name!r}.{hint}")


class VersionNotFound(AdapterNotFound):
    """The name exists, but not this version, tag or digest.

    Attributes:
        name: the adapter's name.
        version: what was asked for, as text.
        nearest: versions and tags that exist.
    """

    def __init__(self, name: str, version: str, nearest: Sequence[str] = (), detail: str | None = None) -> None:
        self.version = version
        known = f" It has {', '.join(nearest)}." if nearest else ""
        super().__init__(name, nearest, detail or f"adapter {name!r} has no version {version!r}.{known}")


class InvalidAdapter(AdapterError, ValueError):
    """The given files are refused."""


class UnsupportedAdapter(InvalidAdapter):
    """A sound adapter of a kind that cannot be served."""


class ConversionTooRough(UnsupportedAdapter):
    """What plain LoRA makes of the adapter predicts too differently from the adapter itself.

    Attributes:
        kl: mean KL(original || converted) of the next-token distributions on the probe text, in nats.
        limit: the largest that was allowed.
        rank: the converted adapter's.
        relative_error: the Frobenius norm of what is lost, as a share of the whole update's.
    """

    def __init__(self, kl: float, limit: float, rank: int, relative_error: float, advice: str) -> None:
        self.kl = kl
        self.limit = limit
        self.rank = rank
        self.relative_error = relative_error
        super().__init__(
            f"as plain LoRA of rank {rank} it loses {relative_error:.2%} of the update (Frobenius norm), and its "
            f"predictions move by KL = {kl:.3g} nats on the probe text, more than {limit:.3g}: {advice}"
        )


class BaseMismatch(InvalidAdapter):
    """A sound adapter that does not fit the base model."""


class InvalidMixture(AdapterError, ValueError):
    """A well-formed mixture that cannot be made of these adapters in this way."""


class MixtureRankTooHigh(InvalidMixture):
    """The mixture's rank is above the limit.

    Attributes:
        rank: what the mixture has, all redundancy removed.
        limit: what is allowed.
    """

    def __init__(self, rank: int, limit: int) -> None:
        self.rank = rank
        self.limit = limit
        super().__init__(
            f"the mixture has rank {rank}, and the limit is {limit}: truncate it, as in svd(rank={limit}):a+b, or "
            "raise the limit"
        )


class InvalidBase(AdapterError, ValueError):
    """The base model's configuration, weights' headers or tokenizer cannot be read."""


class SourceError(AdapterError, OSError):
    """The adapter could not be fetched."""


class StoreError(AdapterError, OSError):
    """The store cannot be read or written."""


class DamagedBlob(StoreError):
    """Stored bytes are missing, or no longer match their digest.

    Attributes:
        digest: of the normal form.
        reason: what is wrong with its files.
    """

    def __init__(
        self, digest: str, reason: str, adapter: str | None = None, advice: str = "Add it again to repair it."
    ) -> None:
        """
        Args:
            adapter: under which name and version somebody asked for it, if that is known.
            advice: what to do.
        """
        self.digest = digest
        self.reason = reason
        what = f"sha256:{digest[:12]}" if adapter is None else f"{adapter!r} (sha256:{digest[:12]})"
        super().__init__(f"the stored adapter {what} is damaged: {reason}. {advice}")


class DamagedRecord(StoreError):
    """A record disappeared or makes no sense, so what it is about is unknown.

    Attributes:
        path: where it is, relative to the store.
    """

    def __init__(self, path: str, store: str, reason: str) -> None:
        self.path = path
        super().__init__(f"the record {path} of the store {store} is damaged: {reason}. Restore it from a backup")
