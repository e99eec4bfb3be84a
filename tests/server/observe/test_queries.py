"""The board and the rules ask only for what a scrape has."""

import json

import pytest

from tests.server.observe.queries import (
    BOARD,
    known_from,
    names_in,
    panels,
    problems,
    queries,
    rules,
    with_recorded,
)
from tests.server.observe.scrapes import scrape


@pytest.fixture(scope="module")
def known() -> dict[str, frozenset[str]]:
    return with_recorded(known_from(scrape()))


@pytest.mark.parametrize(("place", "query"), list(queries()))
def test_a_query(place: str, query: str, known: dict[str, frozenset[str]]) -> None:
    assert problems(query, known) == []


def test_every_metric_of_ours_is_asked_for_somewhere(known: dict[str, frozenset[str]]) -> None:
    asked = set().union(*(names_in(query) for _, query in queries()))
    families = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in known}
    ours = {name for name in families if name.startswith("loraloom_") and not name.endswith("_created")}
    used = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in asked}
    assert ours - used == set()


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("sum(rate(loraloom_request_total[5m]))", "there is no loraloom_request_total"),
        ("vllm:num_requests_runing", "there is no vllm:num_requests_runing"),
        ('loraloom_requests_total{tenant="a"}', "loraloom_requests_total has no label tenant"),
        ('loraloom_requests_total{ending="ok"}', "ending is never ok"),
        ("sum by (colour) (loraloom_engine_up)", "nothing here has a label colour"),
        ("sum by (key) (sum by (adapter) (loraloom_requests_total))", "nothing here has a label key"),
        ("histogram_quantile(0.9, sum(rate(loraloom_edge_queue_seconds_bucket[5m])))", "a quantile needs the label le"),
    ],
)
def test_what_the_check_finds(query: str, problem: str, known: dict[str, frozenset[str]]) -> None:
    assert problems(query, known) == [problem]


def test_what_is_no_query_at_all(known: dict[str, frozenset[str]]) -> None:
    with pytest.raises(ValueError, match="parenthesis"):
        problems("sum by (key (loraloom_requests_total)", known)


def test_recorded_names_have_the_labels_that_were_kept(known: dict[str, frozenset[str]]) -> None:
    assert known["key:loraloom_requests:rate5m"] == {"job", "instance", "key"}
    assert known["key:loraloom_edge_queue_seconds:p95_5m"] == {"job", "instance", "key"}
    assert known["instance:loraloom_requests_failed:ratio5m"] == {"job", "instance"}


def test_every_alert_says_what_to_do() -> None:
    for rule in rules("alerts.yml"):
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}, rule["alert"]


def test_whoever_is_gone_is_told_by_what_prometheus_has_itself() -> None:
    """A server whose engine has died gives no metrics, and ends within seconds."""
    alerts = {rule["alert"]: rule for rule in rules("alerts.yml")}
    assert (names_in(alerts["LoraloomNotScraped"]["expr"]), alerts["LoraloomNotScraped"]["for"]) == ({"up"}, "1m")
    assert names_in(alerts["LoraloomRestarted"]["expr"]) == {"process_start_time_seconds"}
    assert "for" not in alerts["LoraloomEngineDown"]
    (engine,) = [panel for panel in panels() if panel["title"] == "Engine"]
    assert names_in(engine["targets"][0]["expr"]) == {"loraloom_engine_up", "up"}


def test_jobs_that_wait_are_no_alarm() -> None:
    (starved,) = [rule for rule in rules("alerts.yml") if rule["alert"] == "LoraloomKeyStarved"]
    assert 'loraloom_waiting_requests{background="false"}' in starved["expr"]


def test_the_board_is_one_that_grafana_takes() -> None:
    board = json.loads(BOARD.read_text())
    identifiers = [panel["id"] for panel in board["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    assert {variable["name"] for variable in board["templating"]["list"]} == {
        "datasource",
        "instance",
        "key",
        "adapter",
    }
    cells = [
        (x, y)
        for panel in panels()
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
