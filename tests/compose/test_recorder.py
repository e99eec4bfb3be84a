"""Trials are done once in a job's life."""

from collections.abc import Callable
from pathlib import Path

import pytest

from loraloom.compose.errors import Cancelled, DamagedJob
from loraloom.compose.log import TrialLog, read_trials
from loraloom.compose.objective import Question, Task
from loraloom.compose.recorder import Choice, Recorder
from loraloom.compose.scoring import Row
from loraloom.compose.search import search
from loraloom.compose.spec import Optimizer
from loraloom.compose.trials import Trial
from tests.compose.fakes import BowlScorer

BEST = [(0.7, 0.0, 0.5), (0.5, 0.1, 0.7)]
TASK = Task("loss", tuple(Question((Row((number,), (5, 6)),)) for number in (0, 1)))
CHOICE = Choice(("a@1", "b@1", "c@2"), (0, 2))


def recorder(path: Path, scorer: BowlScorer, fold: int = 0, told: Callable[[Trial], None] = lambda _: None) -> Recorder:
    return Recorder(scorer, TASK, CHOICE, 0.05, TrialLog(path), fold, told)


def test_a_choice_is_spread_over_the_pool() -> None:
    assert CHOICE.whole((0.3, -0.2)) == (0.3, 0.0, -0.2)
    assert CHOICE.named((0.3, -0.2)) == {"a@1": 0.3, "c@2": -0.2}


def test_a_trial_says_what_came_out(tmp_path: Path) -> None:
    (trial,) = recorder(tmp_path / "log", BowlScorer(BEST))("search", [(0.7, 0.5)])
    assert trial.weights == {"a@1": 0.7, "c@2": 0.5}
    assert trial.loss == pytest.approx(1 + (0.04 + 0.01 + 0.04) / 2)
    assert trial.objective == pytest.approx(trial.loss + 0.05 * 0.6)
    assert (trial.trial, trial.fold, trial.kind, trial.bound) == (0, 0, "search", False)
    assert read_trials(tmp_path / "log") == [trial]


def test_who_cannot_win_is_given_up_with_what_it_is_at_least(tmp_path: Path) -> None:
    scorer = BowlScorer(BEST)
    trials = recorder(tmp_path / "log", scorer)("search", [(-1.5, -1.5), (0.6, 0.6)], incumbent=1.3)
    assert [trial.bound for trial in trials] == [True, False]
    assert scorer.rows == 3
    (whole,) = recorder(tmp_path / "other", scorer)("search", [(-1.5, -1.5)])
    assert 1.3 < trials[0].objective < whole.objective


def test_an_earlier_runs_trials_are_not_scored_again(tmp_path: Path) -> None:
    first = BowlScorer(BEST)
    found = search(recorder(tmp_path / "log", first), 2, Optimizer(name="CMA", budget=20), False)
    second, told = BowlScorer(BEST), []
    again = search(recorder(tmp_path / "log", second, told=told.append), 2, Optimizer(name="CMA", budget=20), False)
    assert again == found
    assert second.scored == []
    assert told == read_trials(tmp_path / "log")


@pytest.mark.parametrize("kept", [0, 1, 3, 4, 7, 12, 20, 23])
def test_any_number_of_lines_leads_to_the_same_end(tmp_path: Path, kept: int) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    found = search(recorder(whole, BowlScorer(BEST)), 2, Optimizer(name="CMA", budget=20), False)
    lines = whole.read_text().splitlines(keepends=True)
    torn.write_text("".join(lines[:kept]))
    again = search(recorder(torn, BowlScorer(BEST)), 2, Optimizer(name="CMA", budget=20), False)
    assert (again.weights, again.best.objective) == (found.weights, found.best.objective)
    values = [[(each.trial, each.weights, each.objective) for each in read_trials(path)] for path in (whole, torn)]
    assert values[0] == values[1]


def test_folds_are_kept_apart(tmp_path: Path) -> None:
    recorder(tmp_path / "log", BowlScorer(BEST), fold=0)("none", [(0, 0)])
    scorer = BowlScorer(BEST)
    recorder(tmp_path / "log", scorer, fold=1)("none", [(0, 0)])
    assert len(scorer.scored) == 1
    assert [(trial.fold, trial.trial) for trial in read_trials(tmp_path / "log")] == [(0, 0), (1, 0)]


def test_a_log_of_another_job_is_told(tmp_path: Path) -> None:
    recorder(tmp_path / "log", BowlScorer(BEST))("none", [(0, 0)])
    with pytest.raises(DamagedJob, match="trial 0 of the log has other weights"):
        recorder(tmp_path / "log", BowlScorer(BEST))("none", [(0, 1)])


def test_a_trial_is_on_the_disk_before_anybody_is_told(tmp_path: Path) -> None:
    def stop(_: Trial) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        recorder(tmp_path / "log", BowlScorer(BEST), told=stop)("none", [(0, 0)])
    assert len(read_trials(tmp_path / "log")) == 1
