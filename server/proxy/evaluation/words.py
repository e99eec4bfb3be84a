"""What a comparison says, in words."""

from collections.abc import Iterator

from loraloom.server.proxy.evaluation.arms import LARGE, LARGE_TUNED, SHOTS, SMALL_TUNED, headline
from loraloom.server.proxy.evaluation.gap import MIN_GAP, Closed
from loraloom.server.proxy.evaluation.result import OPTIMISTIC, Result
from loraloom.server.proxy.evaluation.spec import HEADLINE


def percent(share: float) -> str:
    """A share as people write it."""
    return f"{100 * share:.0f}%"


def conclusion(result: Result) -> str:
    """The one sentence: what alpha 1 closes of the gap, over all tasks."""
    if result.gap is None:
        return "What proxy-tuning closes of the gap is undefined"
    closed = result.gap.headline
    if closed.share is None:
        return f"There is no gap to close: direct tuning gains {100 * closed.gap:.0f} points"
    return f"At alpha 1, proxy-tuning closes {share(closed)} of the gap to direct tuning"


def share(closed: Closed) -> str:
    """A share of the gap with its interval; or why it has none."""
    if closed.share is None:
        return f"undefined (the gap is {100 * closed.gap:.0f} points, {100 * MIN_GAP:.0f} are needed)"
    if closed.low is None or closed.high is None:
        return percent(closed.share)
    return f"{percent(closed.share)} ({100 * closed.low:.0f} to {100 * closed.high:.0f})"


def details(result: Result) -> Iterator[str]:
    """Sentences that belong to the conclusion."""
    means = result.means
    if headline() in means:
        told = (
            (LARGE, "the large model alone"),
            (SHOTS, "with examples in its prompt"),
            (LARGE_TUNED, "tuned directly"),
        )
        others = [f"{percent(means[key].accuracy.value)} {words}" for key, words in told if key in means]
        yield f"It answers {percent(means[headline()].accuracy.value)} right, against {', '.join(others)}."
        yield from _against_small(result)
    if result.gap and result.gap.best.share is not None and result.gap.best_alpha != HEADLINE:
        yield f"The best one for all tasks, alpha {result.gap.best_alpha:g}, closes {share(result.gap.best)}."
    if result.gap and result.gap.best.share is not None:
        yield OPTIMISTIC


def _against_small(result: Result) -> Iterator[str]:
    """The question that comes first in practice: whether the tuned small model alone would have done."""
    small, proxy = result.means.get(SMALL_TUNED), result.means[headline()]
    if small is None:
        return
    points = 100 * (proxy.accuracy.value - small.accuracy.value)
    verdict = f"{abs(points):.1f} points {'more' if points > 0 else 'less'}" if points else "no more and no less"
    yield f"The tuned small model alone answers {percent(small.accuracy.value)}: steering gives {verdict}."
