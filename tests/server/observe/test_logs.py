"""Lines about requests, and lines without secrets."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import redirect_stdout

import pytest

from loraloom.server.observe import logs
from loraloom.server.observe.logs import JsonLines, fields_of, mask_secrets, masked, tell, write_requests_as
from tests.server.observe.conftest import Ended

KEY = "ll_a1b2_" + "s3cr3t-_" * 5


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The factory and the logger as they were."""
    factory = logging.getLogRecordFactory()
    logs.log.setLevel(logging.INFO)
    yield
    logs.log.setLevel(logging.NOTSET)
    logging.setLogRecordFactory(factory)
    write_requests_as("text")


def test_a_request_as_text(ended: Ended, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tell(ended(client_id="job-7"))
    assert caplog.messages == [
        "id=r1 client_id=job-7 key=team-a method=POST path=/v1/chat/completions model=sql@4 status=200 ending=answered "
        "seconds=2.0 prompt=12 cached=8 output=4 first=0.5 edge=0.01 engine=0.2"
    ]


def test_a_request_that_waited_for_its_adapter_says_so(ended: Ended) -> None:
    assert fields_of(ended(leased=100.31))["loading"] == 0.3


def test_a_request_as_json(ended: Ended) -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        write_requests_as("json")
        tell(ended(model="", status=401, code="invalid_api_key", ending="refused"))
    line = json.loads(out.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO", "logger": "vllm.loraloom.requests", "id": "r1", "key": "team-a", "method": "POST",
        "path": "/v1/chat/completions", "status": 401, "ending": "refused", "code": "invalid_api_key", "seconds": 2.0,
    }  # fmt: skip


def test_choosing_again_adds_no_second_line(ended: Ended) -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        write_requests_as("json")
        write_requests_as("json")
        tell(ended())
    assert len(out.getvalue().splitlines()) == 1


@pytest.mark.parametrize(("status", "level"), [(200, logging.DEBUG), (503, logging.INFO)])
def test_probes_are_quiet_while_they_succeed(
    ended: Ended, caplog: pytest.LogCaptureFixture, status: int, level: int
) -> None:
    with caplog.at_level(logging.DEBUG, logs.log.name):
        tell(ended(model="", path="/ready", status=status))
    assert [record.levelno for record in caplog.records] == [level]


def test_what_is_not_known_is_left_out(ended: Ended) -> None:
    fields = fields_of(ended(first=None, engine_queued=None, admitted=None))
    assert not {"first", "engine", "edge", "client_id", "code", "estimated"} & fields.keys()


def test_other_lines_as_json_have_their_message_and_traceback() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.getLogger("x").makeRecord(
            "x", logging.ERROR, "f", 1, "%s failed", ("it",), __import__("sys").exc_info()
        )
    line = json.loads(JsonLines().format(record))
    assert (line["message"], line["level"]) == ("it failed", "ERROR")
    assert line["exception"].endswith("ValueError: broken")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"key {KEY}, and more", "key ll_a1b2_***, and more"),
        (f"Authorization: Bearer {KEY}", "Authorization: Bearer ***"),
        ("authorization: bearer eyJhbGciOi.J9-x_y/z+==", "authorization: bearer ***"),
        ("ll_a1b2_short", "ll_a1b2_short"),
        ("a bearer of news", "a bearer of news"),
        ("the ll_a1b2 key", "the ll_a1b2 key"),
    ],
)
def test_masking(text: str, clean: str) -> None:
    assert masked(text) == clean


class Lines(logging.Handler):
    """A handler that was made after the masking began, as uvicorn's are."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.lines.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[Lines]:
    mask_secrets()
    mask_secrets()
    handler, logger = Lines(), logging.getLogger("uvicorn.some")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_no_record_has_a_secret(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("uvicorn.some")
    logger.error(f"message {KEY}")
    logger.error("args %s and %r", KEY, {"authorization": f"Bearer {KEY}"})
    logger.error("mapping %(key)s", {"key": KEY})
    try:
        raise ValueError(f"no such key: {KEY}")
    except ValueError:
        logger.exception("traceback", stack_info=True)
    text = "\n".join(lines.lines)
    assert "s3cr3t" not in text
    assert text.count("***") == 5
    assert "ValueError: no such key: ll_a1b2_***" in text
    assert "s3cr3t" not in caplog.text


def test_formatters_that_want_every_argument_have_it(lines: Lines) -> None:
    """As uvicorn's of the access log."""
    logging.getLogger("uvicorn.some").error('%s "%s %s" %d', "1.2.3.4", "GET", f"/v1?key={KEY}", 200)
    assert lines.records[0].args == ("1.2.3.4", "GET", "/v1?key=ll_a1b2_***", 200)


def test_a_wrong_line_is_the_handlers_to_report(lines: Lines) -> None:
    record = logging.getLogRecordFactory()("x", logging.ERROR, "f", 1, "%d", ("no number",), None)
    assert record.args == ("no number",)
