"""The table from errors to HTTP: complete, and in OpenAI's shape."""

import inspect
import json
from typing import Any

import pytest

from loraloom.adapters import errors as adapters
from loraloom.compose import errors as compose
from loraloom.server import errors as server
from loraloom.server.gate.statuses import STATUSES, UNEXPECTED, error_body, send_error, status_of

NEVER_AT_THE_EDGE = {
    adapters.AdapterError,  # the bases are not raised themselves
    server.ServerError,
    server.RequestRefused,
    server.InvalidSettings,  # before the server starts
    server.Disconnected,  # nobody is there to be told
    server.ProxyMismatch,
    compose.ComposeError,
    compose.Interrupted,  # these end the process of a job, which tells them in its folder
    compose.ServerLost,
    compose.Cancelled,
}


def classes(module: Any) -> set[type[Exception]]:
    found = [value for _, value in inspect.getmembers(module, inspect.isclass)]
    return {kind for kind in found if issubclass(kind, Exception) and kind.__module__ == module.__name__}


EVERY = sorted(classes(adapters) | classes(compose) | classes(server), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", [kind for kind in EVERY if kind not in NEVER_AT_THE_EDGE])
def test_every_error_that_can_reach_the_edge_has_a_status(kind: type[Exception]) -> None:
    assert any(parent in STATUSES for parent in kind.__mro__)


def test_nothing_else_is_in_the_table() -> None:
    assert set(STATUSES) <= set(EVERY) - NEVER_AT_THE_EDGE


def test_a_word_stands_for_one_error_and_is_the_same_for_programs() -> None:
    codes = [status.code for status in STATUSES.values()]
    assert len(set(codes)) == len(codes)
    assert all(code.replace("_", "").isalpha() and code.islower() for code in [*codes, UNEXPECTED.code])


def test_only_what_may_pass_by_itself_asks_to_try_again() -> None:
    assert {status.http for status in STATUSES.values() if status.retry_after is not None} == {503}
    assert all(status.retry_after for status in STATUSES.values() if status.http == 503)


@pytest.mark.parametrize(
    ("error", "http", "code"),
    [
        (adapters.InvalidName("a b", 1, "…"), 400, "invalid_model"),
        (adapters.AdapterNotFound("sql"), 404, "model_not_found"),
        (adapters.VersionNotFound("sql", "9"), 404, "model_not_found"),
        (adapters.NameTaken("SQL", "sql"), 409, "name_taken"),
        (adapters.InvalidAdapter("…"), 400, "invalid_adapter"),
        (adapters.UnsupportedAdapter("…"), 400, "invalid_adapter"),
        (adapters.BaseMismatch("…"), 400, "base_mismatch"),
        (adapters.InvalidMixture("…"), 400, "invalid_mixture"),
        (adapters.MixtureRankTooHigh(40, 16), 400, "invalid_mixture"),
        (adapters.InvalidBase("…"), 500, "base_unreadable"),
        (server.OfflineFailed("…"), 500, "offline_failed"),
        (server.OfflineBusy("…"), 503, "offline_busy"),
        (server.MixturesBusy("…"), 503, "mixtures_busy"),
        (adapters.SourceError("…"), 400, "source_unreachable"),
        (adapters.StoreError("…"), 503, "store_unavailable"),
        (adapters.DamagedBlob("0" * 64, "…"), 500, "adapter_damaged"),
        (server.EngineUnavailable("…"), 503, "engine_unavailable"),
        (server.PathClosed("…"), 404, "path_closed"),
        (server.MethodNotOpen("…"), 405, "method_not_open"),
        (server.HeaderRefused("…"), 400, "header_refused"),
        (server.BodyTooLarge("…"), 413, "body_too_large"),
        (server.WrongContentType("…"), 415, "wrong_content_type"),
        (server.InvalidBody("…"), 400, "invalid_body"),
        (server.NotServed("…"), 400, "not_available"),
        (server.InvalidAlpha("…"), 400, "invalid_alpha"),
        (server.RankTooHigh("…"), 400, "rank_too_high"),
        (server.TooManyAdapters("…"), 503, "too_many_adapters"),
        (server.AdapterNotLoaded("…"), 400, "adapter_not_loaded"),
        (server.TooManyJobs("…"), 503, "too_many_jobs"),
        (compose.InvalidSpec("…"), 400, "invalid_job"),
        (compose.InvalidExamples("…"), 400, "invalid_examples"),
        (compose.InvalidPool("…"), 400, "invalid_pool"),
        (compose.JobNotFound("…"), 404, "job_not_found"),
        (compose.JobBusy("…"), 409, "job_busy"),
        (compose.DamagedJob("…"), 500, "job_damaged"),
        (KeyError("…"), 500, "internal_error"),
        (ValueError("…"), 500, "internal_error"),
    ],
)
def test_what_an_error_is_told_as(error: Exception, http: int, code: str) -> None:
    status = status_of(error)
    assert (status.http, status.code) == (http, code)
    assert status.type == ("server_error" if http >= 500 else "invalid_request_error")


def test_the_shape_is_openais() -> None:
    error = server.InvalidBody("keep one", param="adapter")
    assert error_body(error, status_of(error)) == {
        "error": {"message": "keep one", "type": "invalid_request_error", "param": "adapter", "code": "invalid_body"}
    }


@pytest.mark.parametrize("error", [adapters.InvalidName("a b", 1, "…"), adapters.VersionNotFound("sql", "9")])
def test_errors_of_selection_are_about_the_field_model(error: Exception) -> None:
    assert _error_of(error)["param"] == "model"


def test_an_unexpected_error_keeps_its_details_to_the_log() -> None:
    error = OSError("/secret/path: permission denied")
    assert "secret" not in str(_error_of(error))
    assert _error_of(error)["code"] == "internal_error"


@pytest.mark.parametrize(
    "error",
    [
        compose.DamagedJob("/secret/path/job.json cannot be read"),
        adapters.InvalidBase("/secret/path lacks model.safetensors"),
        adapters.StoreError("/secret/path is read-only"),
        adapters.DamagedRecord("names/x", "/secret/path", "it is no JSON"),
        server.OfflineFailed("/secret/path: the process was ended"),
    ],
)
def test_so_does_whatever_is_about_the_servers_own_files(error: Exception) -> None:
    assert "secret" not in str(_error_of(error))
    assert "log has" in _error_of(error)["message"] or "see the log" in _error_of(error)["message"]


def _error_of(error: Exception) -> dict[str, Any]:
    body: Any = error_body(error, status_of(error))
    return dict(body["error"])


@pytest.mark.parametrize(
    ("error", "retry"), [(server.TooManyAdapters("später"), b"1"), (server.PathClosed("nein"), None)]
)
async def test_an_answer_on_the_wire(error: Exception, retry: bytes | None) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await send_error(send, error)
    start, body = sent
    headers = dict(start["headers"])
    assert start["status"] == status_of(error).http
    assert headers.get(b"retry-after") == retry
    assert headers[b"content-type"] == b"application/json"
    assert int(headers[b"content-length"]) == len(body["body"])
    assert json.loads(body["body"])["error"]["message"] == str(error)
