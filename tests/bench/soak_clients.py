"""What the clients of the soak share: what may be asked for, how an answer is judged, and what happened so far."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import httpx

from tests.bench.errors import InvalidRun
from tests.bench.soak_answers import FAULTS, Case, Standing, Verdict

TOKENS = 32
"""At most, of each answer."""
_TOLD = 20
"""Faults that are described, of all that are counted."""


@dataclass
class Journal:
    """What happened.

    Attributes:
        verdicts: answers, by what they showed.
        operations: what keepers did, and kinds of requests, by their names.
        errors: requests and operations that failed.
        faults: the first of all faults, described.
    """

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    errors: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """Answers that are faults."""
        return sum(self.verdicts[verdict] for verdict in FAULTS)

    def judge(self, verdict: Verdict, about: str) -> None:
        self.verdicts[verdict] += 1
        if verdict in FAULTS:
            self._tell(f"{verdict.value}: {about}")

    def fail(self, about: str) -> None:
        self.errors += 1
        self._tell(about)

    def _tell(self, fault: str) -> None:
        if len(self.faults) < _TOLD:
            self.faults.append(fault)


async def answer(client: httpx.AsyncClient, model: str, prompt: str, stream: bool) -> str | None:
    """A greedy answer; None when there is no such model.

    Raises:
        InvalidRun: any other answer than these.
        httpx.HTTPError: the connection failed.
    """
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": TOKENS}
    reply = await client.post("/v1/chat/completions", json={**body, "stream": stream})
    if reply.status_code == 404 and reply.json()["error"]["code"] == "model_not_found":
        return None
    if reply.status_code != 200:
        raise InvalidRun(f"{model!r} was answered with {reply.status_code}: {reply.text[:300]}")
    return _streamed(reply.text) if stream else str(reply.json()["choices"][0]["message"]["content"])


def _streamed(text: str) -> str:
    """The answer in a stream of server-sent events; raises `InvalidRun` for one that does not end as it should."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    if not lines or lines[-1] != "[DONE]":
        raise InvalidRun(f"a stream ended before its end: {text[-300:]}")
    events = [json.loads(line) for line in lines[:-1]]
    if broken := next((event for event in events if "error" in event), None):
        raise InvalidRun(f"an error in a stream: {broken}")
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


@dataclass(frozen=True)
class Soak:
    """What all clients share.

    Attributes:
        client: to the server.
        cases: prompts, by the adapter whose task they are.
        directory: everything that readers may ask for, with what it stands for.
        journal: what happened.
        end: when clients stop, by `time.monotonic`.
    """

    client: httpx.AsyncClient
    cases: Mapping[str, Sequence[Case]]
    directory: dict[str, Standing]
    journal: Journal
    end: float

    @property
    def running(self) -> bool:
        return time.monotonic() < self.end

    async def ask(self, model: str, source: Random) -> None:
        """Ask for a selection, mostly with a prompt of the task that it is for, and judge the answer."""
        standing, stream = self.directory[model], source.random() < 0.5
        mark = standing.mark()
        case = source.choice(self.cases.get(standing.now or "") or self.cases[source.choice(sorted(self.cases))])
        try:
            text = await answer(self.client, model, case.prompt, stream)
        except (InvalidRun, httpx.HTTPError) as error:
            self.journal.fail(repr(error))
            return
        allowed = standing.since(mark)
        self.journal.operations["asked, streaming" if stream else "asked"] += 1
        about = f"{model} ({', '.join(map(str, allowed))}) to {case.prompt!r}: {text!r}"
        self.journal.judge(case.verdict(text, allowed), about)


async def read(soak: Soak, seed: int) -> None:
    """Ask for one thing of the directory after the other, by chance, until the end."""
    source = Random(seed)
    while soak.running:
        await soak.ask(source.choice(list(soak.directory)), source)
