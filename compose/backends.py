"""What scores a job's candidates: a private copy of the model, or a running server."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from loraloom.adapters.errors import InvalidMixture
from loraloom.adapters.methods import Method
from loraloom.adapters.mixtures.mix import Limit, mix
from loraloom.adapters.store import Store
from loraloom.compose.errors import InvalidPool
from loraloom.compose.jobs import Job
from loraloom.compose.pool import Member
from loraloom.compose.scoring import Row, Scorer, Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DIGITS = 16
"""Of a digest in a request's `model`."""


class Backend(Protocol):
    """Makes scorers, which it closes with itself."""

    context: int | None
    """Tokens that it can hold, if it knows better than the model's configuration, once it has made a scorer."""

    def scorer(self, members: Sequence[Member]) -> Scorer:
        """A scorer of these adapters' weightings; one of others that it made before is closed."""
        ...

    def similarity(self, members: Sequence[Member], rows: Sequence[Row]) -> list[list[float]]:
        """How unlike the rows are to what each adapter answers to (`similarity`); less is more alike."""
        ...

    def truncated(self, members: Sequence[Member], weights: Weights, rank: int) -> tuple[Scorer, Weights]:
        """A scorer of one composition brought down to a rank, and the weights under which that scores it; likewise."""
        ...

    def close(self) -> None:
        """Give up what it holds."""
        ...


@contextmanager
def opened(job: Job, store: Store, mixed: int, key: str | None = None) -> Iterator[Backend]:
    """The backend that a job asks for.

    Args:
        job: which.
        store: where its adapters are.
        mixed: how many adapters a composition has.
        key: of the server, if it is one that wants a key.

    Raises:
        InvalidSpec: its model cannot be loaded, or its server is none.
        Interrupted: the server does not answer.
    """
    backend: Backend = _torch(job, store) if job.spec.scorer == "torch" else ServerBackend(job, mixed, key)
    try:
        yield backend
    finally:
        backend.close()


def _torch(job: Job, store: Store) -> "TorchBackend":
    import torch
    from transformers.utils import logging

    from loraloom.compose.scorers.torch_scorer import load_model

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # (transformers does not type it)
    torch.set_num_threads(job.threads)
    return TorchBackend(load_model(job.pool.base), store, job.spec.method)


class TorchBackend:
    """A model of its own; the adapters are read from the store."""

    context: int | None = None

    def __init__(self, model: "PreTrainedModel", store: Store, method: str) -> None:
        self._model = model
        self._store = store
        self._method = method
        self._scorer: Scorer | None = None
        self._members: Sequence[Member] | None = None
        self._leases = ExitStack()

    def scorer(self, members: Sequence[Member]) -> Scorer:
        """As `Backend`; raises `InvalidPool`, `DamagedBlob`."""
        if self._scorer is None or members != self._members:
            self._opened([self._folder(member) for member in members], self._method)
            self._members = members
        assert self._scorer is not None
        return self._scorer

    def similarity(self, members: Sequence[Member], rows: Sequence[Row]) -> list[list[float]]:
        """As `Backend`."""
        from loraloom.compose.scorers.similarity import unlikeness

        return unlikeness(self._model, [self._folder(member) for member in members], rows)

    def truncated(self, members: Sequence[Member], weights: Weights, rank: int) -> tuple[Scorer, Weights]:
        """As `Backend`."""
        sources = [(weight, self._folder(member)) for weight, member in zip(weights, members, strict=True) if weight]
        if not sources:
            return self.scorer(members), weights
        out = Path(self._leases.enter_context(TemporaryDirectory(prefix="loraloom-compose-")))
        try:
            mix(Method(self._method), sources, out, limit=Limit(rank, truncate=True), compact=True)
        except InvalidMixture as error:
            raise InvalidPool(str(error)) from error
        return self._opened([out], "exact"), (1.0,)

    def close(self) -> None:
        """As `Backend`."""
        self._close_scorer()
        self._leases.close()

    def _opened(self, folders: Sequence[Path], method: str) -> Scorer:
        from loraloom.compose.scorers.torch_scorer import TorchScorer

        self._close_scorer()
        self._scorer = TorchScorer(self._model, folders, method)
        self._members = None
        return self._scorer

    def _folder(self, member: Member) -> Path:
        self._store.check(member.digest)
        return self._leases.enter_context(self._store.leased(member.digest))

    def _close_scorer(self) -> None:
        if self._scorer is not None:
            self._scorer.close()
            self._scorer = None


class ServerBackend:
    """A running server, which has the adapters."""

    def __init__(self, job: Job, mixed: int, key: str | None = None) -> None:
        self._key = key
        self._settings = job.spec.server
        self._method = job.spec.method
        self._mixed = mixed
        self._scorer: Scorer | None = None
        self._members: Sequence[Member] | None = None
        self.context: int | None = None

    def scorer(self, members: Sequence[Member]) -> Scorer:
        """As `Backend`; raises `InvalidPool`, `InvalidSpec`, `ServerLost`."""
        if self._scorer is None or members != self._members:
            self._opened(members, None)
            self._members = members
        assert self._scorer is not None
        return self._scorer

    def similarity(self, members: Sequence[Member], rows: Sequence[Row]) -> list[list[float]]:
        """Not there: the job's description refuses it."""
        raise InvalidPool("a server cannot compare by similarity: preselect by score, or use the scorer torch")

    def truncated(self, members: Sequence[Member], weights: Weights, rank: int) -> tuple[Scorer, Weights]:
        """As `Backend`."""
        if self._method != "exact":
            raise InvalidPool(
                f"a server cannot truncate {self._method}: set `publish.rank` to null, or use the scorer torch"
            )
        return self._opened(members, rank), weights

    def close(self) -> None:
        """As `Backend`."""
        if self._scorer is not None:
            self._scorer.close()
            self._scorer = None

    def _opened(self, members: Sequence[Member], rank: int | None) -> Scorer:
        from loraloom.compose.scorers.server_scorer import ServerScorer

        self.close()
        # By content: a server on another store may have other versions under these numbers.
        pool = [f"{member.adapter.partition('@')[0]}@sha256:{member.digest[:_DIGITS]}" for member in members]
        self._scorer = scorer = ServerScorer(self._settings, pool, self._method, rank=rank, key=self._key)
        self._members = None
        scorer.check(min(self._mixed, len(members)), [member.rank for member in members])
        self.context = scorer.context
        return scorer
