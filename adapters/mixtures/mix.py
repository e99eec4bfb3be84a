"""Mixtures as files: several adapters in normal form become one, which is loaded like any other.

The tensors' arithmetic is `arithmetic`; here they are read, brought within a rank, and written.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loraloom.adapters.arithmetic.factors import Factors, Mixed, Term
from loraloom.adapters.errors import DamagedBlob, InvalidAdapter, InvalidMixture, MixtureRankTooHigh
from loraloom.adapters.methods import Method
from loraloom.adapters.normal import update_norm
from loraloom.adapters.weights import read_factors, write_factors


@dataclass(frozen=True, slots=True)
class Limit:
    """The largest rank that a mixture may have.

    Attributes:
        rank: of every module.
        truncate: bring a mixture of larger rank down to it, with an error; otherwise that is refused.
    """

    rank: int
    truncate: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was made.

    Attributes:
        rank: the largest rank of any module.
        error: Frobenius norm of what truncation has left out, over all modules, relative to that of the whole.
    """

    rank: int
    error: float


def mix(
    method: Method,
    sources: Sequence[tuple[float, Path]],
    out: Path,
    *,
    limit: Limit | None = None,
    compact: bool = False,
) -> Outcome:
    """Write the mixture of adapters to the folder `out`, as a normal form.

    Args:
        method: how they are mixed; modules that an adapter lacks are zero in it.
        sources: each adapter's weight, and the folder of its normal form.
        out: an existing folder of the caller's own; its files are complete only when this returns.
        limit: bring modules whose rank is larger to their true rank, and see that this is within it.
        compact: bring every module to its true rank: the result is the same and may be smaller, but takes longer.

    Raises:
        InvalidMixture: the method cannot mix these adapters, or the weights are too large.
        MixtureRankTooHigh: its true rank is above the limit.
        DamagedBlob: a source is damaged.
    """
    mixed = mixed_modules(method, sources, limit=limit, compact=compact)
    return write_mixed(mixed.modules, out, mixed.task_type)


@dataclass(frozen=True, slots=True)
class MixedModules:
    """A mixture in memory.

    Attributes:
        modules: by their paths.
        task_type: of all adapters, if they agree.
    """

    modules: Mapping[str, Mixed]
    task_type: str | None


def mixed_modules(
    method: Method, sources: Sequence[tuple[float, Path]], *, limit: Limit | None = None, compact: bool = False
) -> MixedModules:
    """The mixture of adapters in memory; arguments and errors are those of `mix`."""
    given = [_read(folder) for _, folder in sources]
    updates = [(weight, modules) for (weight, _), (modules, _) in zip(sources, given, strict=True)]
    mixed = {path: _mix_module(method, path, updates) for path in _modules(updates)}
    if compact:
        mixed = {path: _compacted(each) for path, each in mixed.items()}
    if limit is not None:
        mixed = _within(mixed, limit)
    task_types = {task_type for _, task_type in given}
    return MixedModules(mixed, task_types.pop() if len(task_types) == 1 else None)


def write_mixed(modules: Mapping[str, Mixed], out: Path, task_type: str | None) -> Outcome:
    """Write a mixture to the folder `out`, as a normal form."""
    write_factors(out, {path: each.factors for path, each in modules.items()}, task_type)
    return Outcome(max(each.factors.rank for each in modules.values()), relative_error(modules.values()))


def relative_error(modules: Iterable[Mixed]) -> float:
    """What truncation has left out of all modules, relative to the whole; 0 where nothing was."""
    modules = list(modules)
    discarded = math.fsum(each.discarded**2 for each in modules)
    if not discarded:
        return 0.0
    kept = math.fsum(update_norm(each.factors.a, each.factors.b) ** 2 for each in modules)
    return math.sqrt(discarded / (kept + discarded))


def _modules(updates: Sequence[tuple[float, Mapping[str, Factors]]]) -> list[str]:
    return sorted({path for _, modules in updates for path in modules})


def _mix_module(method: Method, path: str, updates: Sequence[tuple[float, Mapping[str, Factors]]]) -> Mixed:
    from loraloom.adapters.arithmetic.registry import combine

    terms = [Term(weight, modules[path]) for weight, modules in updates if path in modules]
    shapes = {(term.factors.b.shape[0], term.factors.a.shape[1]) for term in terms}
    if len(shapes) > 1:
        raise InvalidMixture(
            f"{path} has different shapes (out, in) in these adapters, {' and '.join(map(str, sorted(shapes)))}: "
            "only adapters of one base can be mixed"
        )
    return combine(method, terms, path)


def _compacted(mixed: Mixed) -> Mixed:
    """The same of its true rank; as it was where that is no smaller."""
    from loraloom.adapters.arithmetic.truncate import truncated

    smaller = truncated(mixed.factors, None)
    if smaller.factors.rank >= mixed.factors.rank:
        return mixed
    return Mixed(smaller.factors, mixed.discarded)


def _within(mixed: Mapping[str, Mixed], limit: Limit) -> dict[str, Mixed]:
    """The same with no module of a rank over the limit."""
    return {path: each if each.factors.rank <= limit.rank else _cut(each, limit) for path, each in mixed.items()}


def _cut(mixed: Mixed, limit: Limit) -> Mixed:
    """A module whose rank seems to be over the limit, within it."""
    from loraloom.adapters.arithmetic.truncate import truncated

    cut = truncated(mixed.factors, limit.rank if limit.truncate else None)
    if cut.factors.rank > limit.rank:
        raise MixtureRankTooHigh(cut.factors.rank, limit.rank)
    return Mixed(cut.factors, math.hypot(mixed.discarded, cut.discarded) if limit.truncate else mixed.discarded)


def _read(folder: Path) -> tuple[Mapping[str, Factors], str | None]:
    try:
        return read_factors(folder)
    except InvalidAdapter as error:
        raise DamagedBlob(folder.name, str(error)) from error
