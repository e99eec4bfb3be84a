"""What counts as a wrong answer, and that a finding is made small."""

import json
from pathlib import Path

import pytest
import requests

from tests.fuzz.__main__ import Result, table
from tests.fuzz.calls import Call
from tests.fuzz.server import Fuzzing, wrong

ERROR = {"error": {"message": "no", "type": "invalid_request_error", "param": None, "code": "x"}}


def reply(status: int, body: object = ERROR, **headers: str) -> requests.Response:
    made = requests.Response()
    made.status_code, made._content = status, json.dumps(body).encode()
    made.headers.update(headers)
    made.request = requests.Request("POST", "http://server/").prepare()
    return made


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (reply(200, "anything"), None),
        (reply(400), None),
        (reply(503, **{"retry-after": "5"}), None),
        (reply(503), "status 503"),
        (reply(500), "status 500"),
        (reply(422, {"detail": []}), "status 422 in another shape"),
        (reply(400, {"error": {"message": "x" * 20_000, "type": "x"}}), "status 400 of many bytes"),
    ],
)
def test_what_is_wrong_with_an_answer(answer: requests.Response, fault: str | None) -> None:
    assert wrong(answer) == fault


class Failing(Fuzzing):
    """A server that fails at one field."""

    def sent(self, call: Call) -> requests.Response:
        return reply(500 if call.json.get("bad") else 400)


def test_a_finding_is_one_and_small() -> None:
    fuzzing = Failing("", None, {}, ())
    fuzzing._recover = lambda call: None  # type: ignore[method-assign]
    for other in range(3):
        fuzzing.send(Call("POST", "/v1/completions", "extreme", {"bad": 1, "prompt": "a", "other": other}))
    fuzzing.send(Call("POST", "/v1/completions", "extreme", {"prompt": "a"}))
    (finding,) = fuzzing.findings.values()
    assert finding.call is not None
    assert finding.call.json == {"bad": 1}
    assert fuzzing.statuses == {("extreme", 500): 3, ("extreme", 400): 1}


def test_errors_in_the_log_are_counted_by_what_was_raised(tmp_path: Path) -> None:
    """vLLM writes something before each line; a line of source that raises is not what was raised."""
    before = "(APIServer pid=7) ERROR 11-23 09:46:01 [api_router.py:75] "
    trace = ("Traceback (most recent call last):", '  File "x.py", line 1, in f', "    raise OtherError(what) from e")
    log = tmp_path / "log"
    log.write_text(
        "OtherError: no traceback\n"
        + "".join(f"{before}{line}\n" for line in (*trace, "vllm.exceptions.SomeError: at 12"))
        + "\n".join((*trace, "KeyError: 'a'", "")),
    )
    assert Fuzzing("", log, {}, ())._errors() == {"vllm.exceptions.SomeError: at #": 1, "KeyError: 'a'": 1}


def test_the_table_says_what_was_tried() -> None:
    assert table([Result("grammar", 100_000, 61.2, 0)]).splitlines()[1].split() == ["grammar", "100,000", "61", "0"]
