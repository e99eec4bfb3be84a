"""Trials as lines."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.compose.errors import DamagedJob
from loraloom.compose.trials import Trial, read_trial

numbers = st.floats(allow_nan=False, allow_infinity=False)


def trial(**fields: object) -> Trial:
    values = {"trial": 3, "fold": 0, "kind": "search", "weights": {"sql@4": 0.7, "date@1": -0.1}, "loss": 1.5}
    return Trial(**{**values, "objective": 1.52, "bound": False, "seconds": 0.25, **fields})  # type: ignore[arg-type]


@given(numbers, numbers, numbers)
def test_a_line_reads_back_to_the_last_bit(weight: float, loss: float, objective: float) -> None:
    written = trial(weights={"sql@4": weight}, loss=loss, objective=objective)
    assert read_trial(written.line()) == written


def test_a_line_is_one_line_and_says_what_the_design_says() -> None:
    line = trial().line()
    assert line.count("\n") == 1
    assert line.startswith('{"trial": 3, "fold": 0, "kind": "search", "weights": {"sql@4": 0.7, "date@1": -0.1}, ')
    assert '"loss": 1.5, "objective": 1.52, "bound": false, "seconds": 0.25}' in line


def test_what_is_no_number_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        trial(loss=math.nan).line()


@pytest.mark.parametrize("line", ["", "{", "[]", "{}", '{"trial": 1, "more": 2}'])
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(DamagedJob, match="is no trial"):
        read_trial(line)
