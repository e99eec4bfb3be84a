"""What a scrape says of the moment."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
from prometheus_client import CollectorRegistry

from loraloom.server.observe.standing import Sources, Standing, Tiers


@dataclass
class Book:
    """A ledger that cannot be written."""

    written: int = 7
    dropped: int = 2
    failing: bool = True
    free_bytes: int | None = 1024


SOURCES = Sources(
    alive=lambda: True,
    tiers=lambda: {"slot": 2, "cpu": 5},
    pinned=lambda: 1,
    damaged=lambda: 2,
    jobs=lambda: {"queued": 3, "running": 1},
    waiting=lambda: {"team-a": 4, "team-b": 5, "team-c": 6},
    running=lambda: {"team-a": 8},
    label_of=lambda key: key if key == "team-a" else "other",
    ledger=Book(),
    waiting_behind=lambda: {"team-a": 3, "team-b": 1, "team-c": 1},
)


def scrape(sources: Sources) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Standing(sources))
    return registry


def test_the_moment() -> None:
    value = scrape(SOURCES).get_sample_value
    assert value("loraloom_engine_up") == 1
    assert value("loraloom_resident_adapters", {"tier": "slot"}) == 2
    assert value("loraloom_pinned_adapters") == 1
    assert value("loraloom_damaged_adapters") == 2
    assert value("loraloom_jobs", {"status": "queued"}) == 3
    assert value("loraloom_running_requests", {"key": "team-a"}) == 8
    assert value("loraloom_ledger_lines_total") == 7
    assert value("loraloom_ledger_dropped_lines_total") == 2
    assert value("loraloom_ledger_failing") == 1
    assert value("loraloom_ledger_free_bytes") == 1024
    assert scrape(replace(SOURCES, alive=lambda: False)).get_sample_value("loraloom_engine_up") == 0
    assert scrape(replace(SOURCES, ledger=None)).get_sample_value("loraloom_ledger_failing") is None


def test_keys_without_a_label_of_their_own_are_added_up() -> None:
    value = scrape(SOURCES).get_sample_value
    assert value("loraloom_waiting_requests", {"key": "team-a", "background": "false"}) == 4
    assert value("loraloom_waiting_requests", {"key": "other", "background": "false"}) == 11
    assert value("loraloom_waiting_requests", {"key": "team-a", "background": "true"}) == 3
    assert value("loraloom_waiting_requests", {"key": "other", "background": "true"}) == 2


def test_what_one_source_cannot_say_is_left_out_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Mapping[str, int]:
        raise RuntimeError("changed during iteration")

    with caplog.at_level(logging.ERROR):
        registry = scrape(replace(SOURCES, jobs=broken))
        assert registry.get_sample_value("loraloom_jobs", {"status": "queued"}) is None
        assert registry.get_sample_value("loraloom_engine_up") == 1
    assert len(caplog.records) == 1


async def test_the_tiers_are_those_that_the_engine_last_told() -> None:
    answers: list[Mapping[str, str] | None] = [{"a@1": "slot", "b@1": "cpu", "c@1": "cpu"}, None, {}]

    async def ask() -> Mapping[str, str] | None:
        return answers.pop(0)

    tiers = Tiers(ask)
    assert tiers.numbers() == {"slot": 0, "cpu": 0}
    await tiers.look()
    assert tiers.numbers() == {"slot": 1, "cpu": 2}
    await tiers.look()
    assert tiers.numbers() == {"slot": 1, "cpu": 2}
    await tiers.look()
    assert tiers.numbers() == {"slot": 0, "cpu": 0}
