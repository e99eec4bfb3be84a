"""A request from its first byte to its end."""

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect

from loraloom.server.observe import logs
from loraloom.server.observe.account import CURRENT, Account, Ending
from loraloom.server.observe.ledger import Ledger
from loraloom.server.observe.observer import Observer
from loraloom.server.settings import Settings
from tests.server.observe.conftest import Ended


def start(status: int) -> Mapping[str, Any]:
    return {"type": "http.response.start", "status": status}


END = {"type": "http.response.body"}


@pytest.fixture
def observer() -> Observer:
    return Observer()


@pytest.mark.parametrize(("status", "ending"), [(200, "answered"), (404, "refused"), (503, "failed")])
def test_how_requests_end(observer: Observer, status: int, ending: Ending) -> None:
    account = Account("r1", "GET")
    with observer.following(account, [(b"x-request-id", b"job 7\n")]):
        assert CURRENT.get() is account
        account.told(start(status))
        account.told(END)
    assert CURRENT.get() is None
    assert (account.ending, account.client_id) == (ending, "job7")
    assert account.ended is not None


def test_an_answer_that_is_not_complete_has_failed(observer: Observer) -> None:
    account = Account("r1")
    with observer.following(account, []):
        account.told(start(200))
    assert account.ending == "failed"


def test_what_the_gate_knows_better_stays(observer: Observer) -> None:
    account = Account("r1")
    with observer.following(account, []):
        account.told(start(200))
        account.heard("http.disconnect")
    assert account.ending == "disconnected"


@pytest.mark.parametrize(
    ("error", "ending"),
    [(asyncio.CancelledError, "disconnected"), (RuntimeError, "failed"), (ClientDisconnect, "failed")],
)
def test_errors_go_on_and_are_counted(observer: Observer, error: type[BaseException], ending: Ending) -> None:
    account = Account("r1")
    with pytest.raises(error), observer.following(account, []):
        raise error
    assert account.ending == ending


class Work:
    def __init__(self, account: Account) -> None:
        self._account = account

    def settle(self) -> None:
        self._account.output += 9


def test_everybody_is_told_once_and_after_all_is_counted(
    tmp_path: Path, ended: Ended, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    observer = Observer.start(Settings.model_validate({"usage": tmp_path, "log_format": "text"}), registry)
    account = ended()
    account.calls.append(Work(account))
    with caplog.at_level(logging.INFO), observer.following(account, []):
        pass
    observer.events.evicted()
    observer.close()
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["output"] == 13
    labels = {"key": "team-a", "adapter": "sql@4"}
    assert registry.get_sample_value("loraloom_output_tokens_total", labels) == 13
    assert registry.get_sample_value("loraloom_adapter_evictions_total") == 1
    assert [record.name for record in caplog.records] == [logs.log.name]


def test_requests_that_selected_no_model_are_not_in_the_ledger(tmp_path: Path, ended: Ended) -> None:
    observer = Observer(ledger=Ledger(tmp_path))
    observer.ended(ended(model="", path="/v1/models"))
    observer.close()
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_there_is_no_ledger() -> None:
    observer = Observer.start(Settings.model_validate({"usage": None}), CollectorRegistry())
    assert observer.ledger is None
    with observer.step("select"):
        observer.close()
