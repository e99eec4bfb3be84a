"""The clients that keep a server busy while faults happen to it."""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx

from loraloom.adapters.errors import AdapterError
from loraloom.adapters.store import Store
from tests.adapters.small_adapters import small_adapter
from tests.faults.answers import Question, ask, broken, refusal
from tests.faults.recorder import ASK, GOOD, PUBLISH, READY, WRONG, Recorder

ASKERS = 5
_BREATH = 0.2
"""Seconds that a client waits after it was refused."""
_WIDTH = 576
"""Of the demo model's attention."""
_A_NAME = 20
"""Versions under one name."""


@dataclass
class Keeper:
    """Publishes small versions one after the other, and remembers those that were acknowledged.

    Attributes:
        acknowledged: the digest of each, by name and number.
    """

    folder: Path
    acknowledged: dict[tuple[str, int], str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    async def publish(self, client: httpx.AsyncClient) -> str:
        """Publish one, and tell how it ended."""
        number = next(self._numbers)
        files = _files(self.folder / str(number), number)
        try:
            name = f"kept/{number // _A_NAME}"
            reply = await client.post("/v1/adapters", data={"name": name}, files=files)
        except httpx.HTTPError as error:
            return broken(error)
        if reply.status_code != 201:
            return refusal(reply.status_code, reply.content)
        try:
            version = reply.json()
            self.acknowledged[name, int(version["version"])] = str(version["digest"])
        except (ValueError, LookupError, TypeError):
            return WRONG
        return GOOD

    def lost(self, store: Path) -> list[str]:
        """The acknowledged versions that are not there as they were."""
        opened = Store.open(store, create=False)
        return [
            f"{name}@{number}"
            for (name, number), digest in list(self.acknowledged.items())  # more are published meanwhile
            if not _is_there(opened, name, number, digest)
        ]


def _files(folder: Path, seed: int) -> list[tuple[str, tuple[str, bytes]]]:
    small_adapter(folder, seed=seed, rank=1, scale=0.01, width=_WIDTH)
    return [("files", (file.name, file.read_bytes())) for file in sorted(folder.glob("adapter_*"))]


def _is_there(store: Store, name: str, number: int, digest: str) -> bool:
    try:
        record = next(each for each in store.versions(name) if each.number == number)
        store.check(record.digest)
    except (AdapterError, StopIteration):
        return False
    return record.digest == digest


async def keep_asking(client: httpx.AsyncClient, questions: Sequence[Question], recorder: Recorder, seed: int) -> None:
    """Ask for everything in turn, for ever."""
    source = Random(seed)
    for question in itertools.islice(itertools.cycle(questions), seed, None):
        began = time.monotonic()
        how = await ask(client, question, stream=source.random() < 0.5)
        recorder.note(began, ASK, question.model, how)
        await asyncio.sleep(0 if how == GOOD else _BREATH)


async def keep_publishing(client: httpx.AsyncClient, keeper: Keeper, recorder: Recorder, pause: float = 2.0) -> None:
    """Publish a version every now and then, for ever."""
    while True:
        began = time.monotonic()
        recorder.note(began, PUBLISH, "", await keeper.publish(client))
        await asyncio.sleep(pause)


async def keep_looking(client: httpx.AsyncClient, recorder: Recorder, pause: float = 0.25) -> None:
    """Ask /ready, as a load balancer does, for ever."""
    while True:
        began = time.monotonic()
        try:
            reply = await client.get("/ready")
            how = GOOD if reply.status_code == 200 else refusal(reply.status_code, reply.content)
        except httpx.HTTPError as error:
            how = broken(error)
        recorder.note(began, READY, "", how)
        await asyncio.sleep(pause)
