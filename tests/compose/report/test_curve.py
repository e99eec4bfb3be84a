from dataclasses import replace

import pytest

from loraloom.compose.report.curve import best_so_far, ceiling, draw_curve
from loraloom.compose.report.ink import chart, drawing
from loraloom.compose.trials import Trial
from tests.compose.report.found import result_of, trials_of

CHOSEN = result_of().chosen


def trial(number: int, objective: float, kind: str = "search", bound: bool = False, fold: int = 0) -> Trial:
    return Trial(number, fold, kind, {"sql@4": 0.1}, objective - 0.01, objective, bound, 0.1)


def drawn(trials: list[Trial], objective: str = "loss") -> tuple[dict[str, int], tuple[float, float], list[str], str]:
    """Points by label, limits of the ordinate, texts and the ordinate's label."""
    with drawing("test"):
        _, axes = chart(6, 3)
        draw_curve(axes, trials, CHOSEN, objective)
    points = {str(line.get_label()): len(line.get_xdata()) for line in axes.lines}  # type: ignore[arg-type]
    return points, axes.get_ylim(), [each.get_text() for each in axes.texts], axes.get_ylabel()


def test_the_best_so_far_never_rises_and_takes_no_bound_for_a_score() -> None:
    trials = [trial(0, 3.0), trial(1, 1.0, bound=True), trial(2, 2.0), trial(3, 2.5), trial(4, 1.5)]
    assert best_so_far(trials) == [(0, 3.0), (2, 2.0), (3, 2.0), (4, 1.5)]


def test_baselines_bounds_and_the_chosen_one_are_told_apart() -> None:
    points, _, _, _ = drawn(trials_of())
    assert points["no adapter"] == points["uniform mean"] == points["chosen"] == 1
    assert points["one adapter alone"] == 8
    assert points["given up early: at least this"] > 0
    assert points["searched"] > 10


def test_one_bad_trial_does_not_flatten_the_others() -> None:
    trials = [*trials_of(), trial(99, 1e6)]
    _, (low, high), texts, _ = drawn(trials)
    assert 0 < low < high < 10
    assert texts == ["3 trials above"]


def test_searches_that_leave_one_out_are_thin_lines_with_one_name() -> None:
    without, _, _, _ = drawn(trials_of())
    points, _, _, _ = drawn(trials_of(folds=5))
    assert set(points) - set(without) == {"one example left out", "_"}


def test_a_search_that_left_all_out_is_passed_over() -> None:
    points, _, _, _ = drawn([*trials_of(), trial(0, 1.0, bound=True, fold=1)])
    assert points["best so far"] > 10


@pytest.mark.parametrize(
    "trials", [[trial(0, 2.0, "none")], [trial(0, 2.0, bound=True)], [trial(0, 0.0), trial(1, 0.0)]]
)
def test_few_trials_are_drawn_too(trials: list[Trial]) -> None:
    _, (low, high), _, _ = drawn(trials)
    assert low < trials[0].objective < high


def test_the_ceiling_is_above_the_base_model_and_the_median() -> None:
    assert ceiling([trial(0, 3.0, "none"), trial(1, 1.0), trial(2, 900.0)]) == pytest.approx(4.2)
    assert ceiling([trial(0, 1.0, "none"), trial(1, 2.0), trial(2, 2.1)]) == 2.1


def test_the_axis_says_what_was_minimised() -> None:
    assert drawn(trials_of())[3] == "loss + penalty, nats a token"
    assert "wrong answers" in drawn(trials_of(), "choice")[3]


def test_a_recommendation_is_drawn_and_can_be_the_chosen_one() -> None:
    trials = trials_of()
    trials[37] = replace(trials[37], kind="recommended")
    points, _, _, _ = drawn(trials)
    assert points["chosen"] == 1
