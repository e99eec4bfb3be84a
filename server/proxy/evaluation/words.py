"""What a comparison says, in words."""

from collections.abc import Iterator

from loraloom.adapters.scanner import number_text
from loraloom.server.proxy.evaluation.arms import LARGE, LARGE_TUNED, SHOTS, SMALL_TUNED, headline
from loraloom.server.proxy.evaluation.gap import MIN_GAP, Closed, Gain
from loraloom.server.proxy.evaluation.result import OPTIMISTIC, Gap, Result
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
        return f"The gap is too small to measure: direct tuning gains {100 * closed.gap:.0f} points"
    return f"At alpha 1, proxy-tuning closes {share(closed)} of the gap to direct tuning"


def share(closed: Closed) -> str:
    """A share of the gap with its interval; or why it has none."""
    if closed.share is None:
        return f"undefined (the gap is {100 * closed.gap:.0f} points, {100 * MIN_GAP:.0f} are needed)"
    if closed.low is None or closed.high is None:
        return percent(closed.share)
    return f"{percent(closed.share)} ({100 * closed.low:.0f} to {100 * closed.high:.0f})"


def points(gain: Gain) -> str:
    """A gain in points with its interval."""
    value, low, high = (round(100 * each, 1) + 0.0 for each in (gain.value, gain.low, gain.high))  # no "-0.0"
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"


def mean_name(result: Result) -> str:
    """What the means are over."""
    count, every = len(result.shared), len(result.tasks)
    return "mean" if count == every else f"mean of {count} of {every}"


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
        right = percent(means[headline()].accuracy.value)
        yield f"{_where(result)} answers {right} right, against {', '.join(others)}."
        if gain := result.gains.get(LARGE):
            yield f"That is {points(gain)} over the large model alone."
        if (gain := result.gains.get(SMALL_TUNED)) and (small := means.get(SMALL_TUNED)):
            yield f"The tuned small model alone answers {percent(small.accuracy.value)}: steering gives {points(gain)}."
    if result.gap and _chosen(result.gap):
        alpha = number_text(result.gap.best_alpha)
        yield f"The best one for all tasks, alpha {alpha}, closes {share(result.gap.best)}."
    if any(_chosen(gap) for gap in (*result.gaps.values(), result.gap) if gap):
        yield OPTIMISTIC


def _chosen(gap: Gap) -> bool:
    """Whether the test prompts chose a strength by which a share of the gap is told."""
    return gap.best.share is not None and gap.best_alpha != HEADLINE


def _where(result: Result) -> str:
    """The beginning of a sentence on means: they are over the tasks that every arm took."""
    count, every = len(result.shared), len(result.tasks)
    return "It" if count == every else f"On the {count} of {every} tasks that every arm took, it"
