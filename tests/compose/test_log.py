"""The log of trials: whole lines, once each, on the disk."""

import os
from pathlib import Path

import pytest

from loraloom.compose.errors import DamagedJob
from loraloom.compose.log import TrialLog, read_trials
from tests.compose.test_trials import trial


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trials.jsonl"


def test_what_is_appended_is_there_for_the_next(path: Path) -> None:
    trials = [trial(trial=number) for number in range(3)]
    TrialLog(path).append(trials)
    assert read_trials(path) == trials
    again = TrialLog(path)
    assert again.get(0, 2) == trials[2]
    assert again.get(0, 3) is None
    assert again.get(1, 2) is None


def test_trials_that_are_there_are_not_written_again(path: Path) -> None:
    TrialLog(path).append([trial(trial=0)])
    again = TrialLog(path)
    again.append([trial(trial=0), trial(trial=1)])
    assert [each.trial for each in read_trials(path)] == [0, 1]
    again.append([trial(trial=1)])
    assert len(read_trials(path)) == 2


@pytest.mark.parametrize("torn", [1, 10, 60])
def test_a_line_that_was_not_written_to_its_end_is_cut_off(path: Path, torn: int) -> None:
    TrialLog(path).append([trial(trial=0), trial(trial=1, weights={"naïve@1": 1.0})])
    os.truncate(path, path.stat().st_size - torn)
    assert [each.trial for each in read_trials(path)] == [0]
    log = TrialLog(path)
    assert log.get(0, 1) is None
    log.append([trial(trial=1)])
    assert [each.trial for each in read_trials(path)] == [0, 1]


def test_a_line_in_the_middle_that_is_no_trial_is_told(path: Path) -> None:
    path.write_text("{}\n" + trial().line())
    with pytest.raises(DamagedJob, match="Start the job anew"):
        TrialLog(path)


def test_bytes_that_are_no_text_are_told(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(DamagedJob, match="no text"):
        read_trials(path)


def test_a_job_that_has_not_begun_has_no_trials(path: Path) -> None:
    assert read_trials(path) == []


def test_a_full_disk_is_told() -> None:
    full = Path("/dev/full")
    log = TrialLog.__new__(TrialLog)
    log._path, log._known = full, {}
    with pytest.raises(OSError, match="No space left"):
        log.append([trial()])
