"""Thousands of requests to a running server: none ends in a 500, none hangs, and the engine is well at the end."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import requests
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.calls import SOUND, Call, by_schema, extreme, operations, uploads

HANG = 60.0
"""Seconds after which a request hangs."""
RESTART = 300.0
"""Seconds that a lost engine gets to come back."""
RAISED = r"^(?:\([^\n]*?\] )?(\w+(?:\.\w+)*(?:Error|Exception)\b.{0,80})"
"""The last line of a traceback: what was raised, behind what the log has before each line."""
SHARES = {"schema": 0.45, "extreme": 0.45, "upload": 0.1}
"""Of all requests."""


@dataclass(frozen=True)
class Finding:
    """Something that must not happen.

    Attributes:
        what: in a few words; findings of the same words are one.
        call: the request, as small as it could be made.
        answer: what came back.
    """

    what: str
    call: Call | None
    answer: str


@dataclass
class Fuzzing:
    """One session of fuzzing.

    Attributes:
        url: where the server listens.
        log: what it prints; None where that cannot be read.
        headers: with every request, such as `Authorization`.
        models: what selects something that is there.
        findings: by their words.
        statuses: how many answers of each status there were, by kind of request.
    """

    url: str
    log: Path | None
    headers: Mapping[str, str]
    models: tuple[str, ...]
    findings: dict[str, Finding] = field(default_factory=dict)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    session: requests.Session = field(default_factory=requests.Session)

    def run(self, cases: int, start: int) -> int:
        """Send so many requests or a few more, drawn from the random seed `start`; returns how many were answered."""
        document = self.session.get(f"{self.url}/openapi.json", headers=self.headers, timeout=HANG).json()
        before, told = self._completion(), self._errors()
        chosen = st.sampled_from((*self.models, *self.models, None))
        groups = {
            "extreme": [extreme(document, path, chosen) for path in SOUND if path in document["paths"]],
            "schema": [by_schema(each, chosen) for each in operations(document)],
            "upload": [uploads()],
        }
        for kind, strategies in groups.items():
            each = max(1, round(SHARES[kind] * cases / len(strategies)))
            for number, strategy in enumerate(strategies):
                _drawn(strategy, each, start + number, self.send)
        for number, strategy in enumerate(groups["extreme"] * 3):  # some operations have but few different requests
            if (missing := cases - self.statuses.total()) > 0:
                _drawn(strategy, missing, start + 1000 + number, self.send)
        if self._completion() != before:
            self._note(Finding("a completion is not what it was before", None, ""))
        for line, count in (self._errors() - told).items():
            self._note(Finding(f"the log has {line}", None, f"{count} times"))
        return self.statuses.total()

    def send(self, call: Call) -> None:
        """Send one request, and look at its answer."""
        try:
            reply = self.sent(call)
        except requests.Timeout:
            self._note(Finding(f"no answer within {HANG:.0f} s: {call.method} {call.path}", call, ""))
            return self._recover(call)
        except requests.ConnectionError as error:
            self._note(Finding(f"the connection was cut: {call.method} {call.path}", call, str(error)[:300]))
            return self._recover(call)
        except ValueError:  # what cannot be said in HTTP at all
            return
        self.statuses[call.kind, reply.status_code] += 1
        if (fault := wrong(reply)) is not None:
            path = re.sub(r"[0-9a-f]{8,}|\d+", "#", call.path)[:60] if call.kind != "schema" else call.path[:30]
            told = self._last_error() if reply.status_code == 500 else reply.text[:160]
            what = f"{fault}: {call.method} {path}: {re.sub(r'[0-9]+', '#', told)}"
            if what not in self.findings:
                self._note(Finding(what, self._smaller(call, fault), reply.text[:500]))
        if reply.status_code >= 500:
            self._recover(call)

    def sent(self, call: Call) -> requests.Response:
        """The answer to a request."""
        content: dict[str, Any] = {}
        headers = {**call.headers, **self.headers}
        if call.json is not None:
            content = {"data": json.dumps(call.json).encode()}
            headers.setdefault("content-type", "application/json")
        if call.files:
            parts = [(name, (file, raw)) for name, file, raw in call.files]
            content = {"data": dict(call.form), "files": parts}
        address = f"{self.url}{call.path}"
        return self.session.request(call.method, address, params=call.params, headers=headers, timeout=HANG, **content)

    def _smaller(self, call: Call, fault: str) -> Call:
        """The same request with every field left out that does not matter."""
        if not isinstance(call.json, dict):
            return call
        for key in list(call.json):
            less = replace(call, json={name: value for name, value in call.json.items() if name != key})
            try:
                if wrong(self.sent(less)) == fault:
                    call = less
            except requests.RequestException:
                return call
        return call

    def _recover(self, call: Call) -> None:
        """Wait until the server is ready; it is a finding if it was not."""
        end = time.monotonic() + RESTART
        first = True
        while not self._ready():
            if first:
                self._note(Finding(f"the engine was lost: {call.method} {call.path} {_digest(call)}", call, ""))
            first = False
            if time.monotonic() > end:
                raise AssertionError(f"the server did not come back after {call}")
            time.sleep(1)

    def _ready(self) -> bool:
        try:
            return self.session.get(f"{self.url}/ready", headers=self.headers, timeout=10).status_code == 200
        except requests.RequestException:
            return False

    def _completion(self) -> str:
        body = {"model": self.models[0], "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
        reply = self.session.post(f"{self.url}/v1/completions", json=body, headers=self.headers, timeout=HANG)
        return str(reply.json()["choices"][0]["text"])

    def _errors(self) -> Counter[str]:
        """The errors in the log that nobody caught, by what they say."""
        text = "" if self.log is None else self.log.read_text(errors="replace")
        found = re.findall(r"^.*?Traceback \(most recent call last\)(?:.*\n)+?" + RAISED, text, re.MULTILINE)
        return Counter(re.sub(r"\d+", "#", each) for each in found)

    def _last_error(self) -> str:
        """What the log says of the last exception, and where it was raised."""
        text = "" if self.log is None else self.log.read_text(errors="replace")[-20_000:]
        raised = re.findall(r"^.*?\b((?:\w+\.)*\w+(?:Error|Exception|Panic)\w*\b.*)$", text, re.MULTILINE)
        places = re.findall(r'File "([^"]+)", line (\d+)', text)
        return f"{raised[-1][:120] if raised else ''} at {places[-1] if places else ''}"

    def _note(self, finding: Finding) -> None:
        if finding.what not in self.findings:
            self.findings[finding.what] = finding
            print(f"FOUND {finding.what}\n   {str(finding.call)[:1500]}\n   {finding.answer[:300]}", flush=True)


def wrong(reply: requests.Response) -> str | None:
    """What is wrong with an answer, if anything is."""
    status = reply.status_code
    if status == 503 and int(reply.headers.get("retry-after", 0)) > 0:
        return None
    if status >= 500:
        return f"status {status}"
    if status >= 400 and reply.request.method != "HEAD" and not _openai_error(reply):
        return f"status {status} in another shape"
    if status >= 400 and len(reply.content) > 10_000:
        return f"status {status} of many bytes"
    return None


def _openai_error(reply: requests.Response) -> bool:
    try:
        error = reply.json()["error"]
        return {"message", "type"} <= set(error) and isinstance(error["message"], str)
    except (ValueError, KeyError, TypeError):
        return False


def _digest(call: Call) -> str:
    return str(sorted(call.json) if isinstance(call.json, dict) else "")[:80]


def _drawn(strategy: st.SearchStrategy[Call], cases: int, start: int, take: Callable[[Call], object]) -> None:
    @seed(start)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),
    )
    @given(strategy)
    def draw(call: Call) -> None:
        take(call)

    draw()
