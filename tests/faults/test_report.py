import json

from tests.faults.recorder import GOOD
from tests.faults.report import document, record_of, results_of, told
from tests.faults.round import Result, Round

ROUNDS = [
    Round(30.0, 41.0, {GOOD: 40, "503 engine_unavailable": 1200}, {GOOD: 3}, {"503 engine_unavailable": 9}, 0, 0),
    Round(34.0, 39.0, {GOOD: 40, "broken off": 2}, {GOOD: 3}, {GOOD: 9}, 0, 0),
]
RESULTS = [
    Result("kill", "the engine dies", "SIGKILL", ROUNDS),
    Result("clock", "the clock jumps", "a library", [], "there is no compiler"),
]
ABOUT = {"date": "2026-11-23", "machine": {"cores": 2}, "acknowledged": 6}


def test_a_line_of_the_table_has_the_figures_of_all_times() -> None:
    line = next(line for line in document(RESULTS, ABOUT).splitlines() if line.startswith("| the engine dies"))
    assert line == (
        "| the engine dies | SIGKILL | 2 | 80 good, 1,200 503 `engine_unavailable`, 2 broken off | 6 good "
        "| 9 good, 9 503 `engine_unavailable` | 32.0, 34.0 | 41.0 | 0 | 0 | 0 |"
    )


def test_the_introduction_tells_the_sums_and_what_was_left_out_is_told() -> None:
    text = document(RESULTS, ABOUT)
    assert "what came of 2 faults" in text
    assert "Of 1,282 requests" in text
    assert "- the clock jumps: there is no compiler" in text
    assert "| the clock jumps" not in text


def test_the_page_has_what_went_otherwise_and_what_else_is_to_be_known() -> None:
    odd = Round(1.0, 2.0, {GOOD: 1}, {}, {}, 0, 0, "TimeoutError()")
    text = document([Result("leave", "clients leave", "by hand", (odd, odd))], {**ABOUT, "note": "The disk was slow."})
    assert text.count("- clients leave: TimeoutError()") == 1
    assert "vLLM takes to start.\nThe disk was slow.\n\n|" in text
    assert "otherwise" not in document(RESULTS, ABOUT)


def test_a_time_that_never_came_is_no_figure() -> None:
    gone = Result("kill", "it dies", "SIGKILL", (Round(None, None, {}, {}, {}, 0, 0),))
    assert "| never | never | 0 | 0 | 1 |" in document([gone], ABOUT)
    assert told({}) == "none"


def test_the_record_has_each_time_by_itself() -> None:
    record = json.loads(record_of(RESULTS, ABOUT))
    assert record["machine"]["cores"] == 2
    assert [each["seconds"] for each in record["faults"][0]["rounds"]] == [30.0, 34.0]


def test_a_record_can_be_read_again() -> None:
    assert results_of(json.loads(record_of(RESULTS, ABOUT))) == RESULTS
