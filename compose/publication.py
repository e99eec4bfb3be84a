"""What becomes of a composition: a version in the store, with where it comes from."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from loraloom.adapters.base import find_fingerprint
from loraloom.adapters.errors import AdapterNotFound, NameTaken, VersionNotFound
from loraloom.adapters.methods import Method
from loraloom.adapters.mixtures.mix import Limit
from loraloom.adapters.mixtures.publication import publish_mixture
from loraloom.adapters.mixtures.recipe import Recipe, settled
from loraloom.adapters.names import Mixture, Term, parse_adapter
from loraloom.adapters.store import Store
from loraloom.compose.plan import Plan
from loraloom.compose.result import Verdict


@dataclass(frozen=True, slots=True)
class Publication:
    """What became of it.

    Attributes:
        version: canonical name of the new version; None where nothing was published.
        reason: why, or why not, in one sentence.
        rank: of the published adapter.
        error: relative Frobenius error of truncation.
    """

    version: str | None
    reason: str
    rank: int = 0
    error: float = 0.0


def composition(plan: Plan, weights: Mapping[str, float], truncated: bool = False) -> Mixture | None:
    """The composition as a request can ask for it; None where all weights are zero: that is the base model.

    Args:
        plan: the job.
        weights: by canonical name.
        truncated: to the largest rank that it may have.
    """
    terms = tuple(Term(weight, parse_adapter(name)) for name, weight in weights.items() if weight)
    if not terms:
        return None
    if truncated and plan.spec.method == "exact" and plan.rank is not None:
        return Mixture(terms, Method("svd", (("rank", plan.rank),)))
    return Mixture(terms, Method(plan.spec.method))


def rank_of(plan: Plan, weights: Mapping[str, float]) -> int:
    """The rank of the composition before redundancy is removed."""
    ranks = [member.rank for member in plan.pool.members if weights.get(member.adapter)]
    return sum(ranks) if plan.spec.method == "exact" else max(ranks, default=0)


def truncates(plan: Plan, weights: Mapping[str, float]) -> bool:
    """Whether the composition's rank is larger than it may be."""
    return plan.rank is not None and rank_of(plan, weights) > plan.rank


def publish(
    store: Store,
    plan: Plan,
    weights: Mapping[str, float],
    verdict: Verdict,
    provenance: Mapping[str, object],
    by: str | None = None,
) -> Publication:
    """Publish a composition if that is what is wanted.

    Doing it again gives the version that is there.

    Args:
        store: where to.
        plan: the job.
        weights: of the composition, by canonical name.
        verdict: on it.
        provenance: where it comes from, as JSON.
        by: who publishes it.

    Raises:
        AdapterError: an ingredient is gone or damaged, the name is taken, or the store cannot be written.
    """
    wanted = plan.spec.publish.when
    if wanted == "never":
        return Publication(None, "not published: the job says never")
    if wanted == "if_better" and verdict.name != "better":
        return Publication(None, f"not published: the verdict is {verdict}, and the job says only if it is better")
    mixture = composition(plan, weights)  # truncation comes with the limit
    if mixture is None:
        return Publication(None, "not published: all weights are zero, so it is the base model itself")
    with telling_no_names():
        return _publish(store, plan, settled(mixture, store.resolve), provenance, by)


@contextmanager
def telling_no_names() -> Iterator[None]:
    """Errors of the block tell no names but those that the job has.

    A job sees the whole store, and on a server its words are read by somebody who may not.
    """
    try:
        yield
    except NameTaken as error:
        raise NameTaken(error.name) from error
    except VersionNotFound:  # with versions of an adapter that the job names
        raise
    except AdapterNotFound as error:
        raise AdapterNotFound(
            error.name, detail=f"there is no adapter {error.name!r} any more: add it again, or start the job anew"
        ) from error


def _publish(store: Store, plan: Plan, recipe: Recipe, provenance: Mapping[str, object], by: str | None) -> Publication:
    published, outcome = publish_mixture(
        store,
        recipe,
        plan.spec.name,
        limit=None if plan.rank is None else Limit(plan.rank, truncate=True),
        tag=plan.spec.publish.tag,
        base=find_fingerprint(plan.pool.base),
        base_name=plan.pool.base,
        by=by,
        provenance={"composed": provenance},
    )
    record = published.version
    ours = record.provenance.get("composed")
    # A job that was killed before it noted that it had published ends as if it had not been.
    again = isinstance(ours, dict) and "job" in provenance and ours.get("job") == provenance["job"]
    new = published.created or again
    reason = f"published as {record.canonical}" if new else f"{record.canonical} has this content already"
    return Publication(record.canonical, reason, outcome.rank, outcome.error)
