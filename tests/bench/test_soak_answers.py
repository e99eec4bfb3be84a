from dataclasses import replace

import pytest

from tests.bench.soak_answers import GONE, Case, Standing, Verdict

CASE = Case(
    "Write this date in ISO format: May 1, 2020",
    "2020-05-01",
    "date",
    {"date": "2020-05-01", "sql": "SELECT 1;", "smollm2": "May 1, 2020"},
)


def test_a_request_during_a_change_may_meet_either_state() -> None:
    standing = Standing("date")
    before = standing.mark()
    assert standing.since(before) == {"date"}
    standing.begin("sql")
    during = standing.mark()
    assert standing.since(before) == standing.since(during) == {"date", "sql"}
    assert standing.now == "date"
    standing.settle()
    after = standing.mark()
    assert standing.since(during) == {"date", "sql"}
    assert standing.since(after) == {standing.now} == {"sql"}


def test_a_request_over_two_changes_may_meet_any_of_three_states() -> None:
    standing = Standing("date")
    mark = standing.mark()
    for behaviour in ("sql", GONE):
        standing.begin(behaviour)
        standing.settle()
    assert standing.since(mark) == {"date", "sql", GONE}


@pytest.mark.parametrize(
    ("answer", "allowed", "verdict"),
    [
        (" 2020-05-01\n", {"date"}, Verdict.RIGHT),
        ("SELECT 1;", {"date"}, Verdict.WRONG_ADAPTER),
        ("May 1, 2020", {"date"}, Verdict.WRONG_ADAPTER),
        ("2020-05-02", {"date"}, Verdict.UNLIKE_ANY),
        ("2020-05-02", {"date", GONE}, Verdict.UNLIKE_ANY),
        (None, {"date"}, Verdict.REFUSED),
        (None, {"date", GONE}, Verdict.RIGHT),
        ("2020-05-01", {GONE}, Verdict.NOT_REFUSED),
        ("SELECT 1;", {"date", "sql"}, Verdict.RIGHT),
        ("2020-05-01", {"smollm2"}, Verdict.WRONG_ADAPTER),
        ("May the first", {"smollm2"}, Verdict.UNDECIDED),
    ],
)
def test_verdicts(answer: str | None, allowed: set[str | None], verdict: Verdict) -> None:
    assert CASE.verdict(answer, allowed) is verdict


def test_a_prompt_that_two_answer_alike_tells_nothing() -> None:
    assert CASE.tells
    assert not replace(CASE, seen={**CASE.seen, "sql": "2020-05-01"}).tells
    assert not replace(CASE, seen={**CASE.seen, "date": "2020-05-02"}).tells
