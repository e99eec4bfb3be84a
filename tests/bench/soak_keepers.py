"""Clients of the soak that add, tag and remove adapters over HTTP, and see that the next request meets the change."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from random import Random
from typing import Any

import httpx

from loraloom.adapters.manifest import CONFIG_FILE, WEIGHTS_FILE
from loraloom.demo.catalog import DemoAdapter
from tests.bench.errors import InvalidRun
from tests.bench.soak_answers import GONE, Standing
from tests.bench.soak_clients import Soak

LIVE = 3
"""Versions that a keeper keeps."""
REMEMBERED = 3
"""Versions that readers still ask for after their removal, to be told that there are none."""
TAG = "stable"


@dataclass
class Keeper:
    """Keeps some versions of one adapter, of another behaviour each, and changes them all the time.

    Attributes:
        soak: what all clients share.
        name: of its adapter, which nobody else changes.
        adapters: what it publishes in turn: more than `LIVE`, so that no version is what a living one is already.
        pause: seconds between its changes.
    """

    soak: Soak
    name: str
    adapters: Sequence[DemoAdapter]
    pause: float = 0.5
    _live: dict[int, str] = field(default_factory=dict)
    _removed: list[str] = field(default_factory=list)
    _passed: int = 0

    def __post_init__(self) -> None:
        assert len(self.adapters) > LIVE
        self._source = Random(self.name)
        self._latest, self._tagged = Standing(GONE), Standing(GONE)
        self.soak.directory.update({self.name: self._latest, f"{self.name}@{TAG}": self._tagged})

    async def keep(self) -> None:
        """Change one thing after the other until the end."""
        for adapter in cycle(self.adapters):
            await self._tried(self._add(adapter))
            if self._live:
                await self._tried(self._move(max(self._live)))
                await self._tried(self._move(min(self._live)))
                await self._tried(self._move(max(self._live)))
            if len(self._live) > LIVE:
                await self._tried(self._remove(min(self._live)))
            await self._tried(self._let_pass(adapter))
            if not self.soak.running:
                return

    async def _tried(self, change: Awaitable[None]) -> None:
        try:
            await change
        except (InvalidRun, httpx.HTTPError) as error:
            self.soak.journal.fail(f"{self.name}: {error!r}")
        await asyncio.sleep(self.pause)

    async def _add(self, adapter: DemoAdapter) -> None:
        """Upload a new version; `latest` moves to it."""
        self._latest.begin(adapter.name)
        version = await self._upload(self.name, adapter)
        self._latest.settle()
        self._live[version] = adapter.name
        await self._see(f"{self.name}@{version}", Standing(adapter.name))
        await self._see(self.name, self._latest)

    async def _move(self, version: int) -> None:
        """Move the tag."""
        self._tagged.begin(self._live[version])
        await self._sent("tag moved", "PUT", f"{self.name}/tags/{TAG}", json={"version": version})
        self._tagged.settle()
        await self._see(f"{self.name}@{TAG}", self._tagged)

    async def _remove(self, version: int) -> None:
        """Remove a version, which no tag stands at."""
        model = f"{self.name}@{version}"
        standing = self.soak.directory[model]
        standing.begin(GONE)
        await self._sent("version removed", "DELETE", f"{self.name}/versions/{version}")
        standing.settle()
        del self._live[version]
        await self._see(model, standing)
        self._removed.append(model)
        for forgotten in self._removed[:-REMEMBERED]:
            self.soak.directory.pop(forgotten, None)

    async def _let_pass(self, adapter: DemoAdapter) -> None:
        """Add an adapter under a new name, use it, and remove the whole name."""
        self._passed += 1
        name = f"{self.name}-{self._passed}"
        await self._upload(name, adapter)
        standing = Standing(adapter.name)
        await self._see(name, standing)
        standing.begin(GONE)
        await self._sent("name removed", "DELETE", name)
        standing.settle()
        await self._see(name, standing)
        del self.soak.directory[name]

    async def _see(self, model: str, standing: Standing) -> None:
        """Ask for what has just been changed."""
        self.soak.directory[model] = standing
        await self.soak.ask(model, self._source)

    async def _upload(self, name: str, adapter: DemoAdapter) -> int:
        """Publish an adapter; returns the number of its version."""
        files = [("files", (part, (adapter.folder / part).read_bytes())) for part in (CONFIG_FILE, WEIGHTS_FILE)]
        reply = await self._sent("adapter added", "POST", "", data={"name": name}, files=files)
        return int(reply.json()["version"])

    async def _sent(self, operation: str, method: str, path: str, **content: Any) -> httpx.Response:
        """Ask for a change; raises `InvalidRun` if it is refused."""
        url = f"/v1/adapters/{path}".rstrip("/")
        reply = await self.soak.client.request(method, url, **content)
        if reply.is_error:
            raise InvalidRun(f"{method} {url} was answered with {reply.status_code}: {reply.text[:300]}")
        self.soak.journal.operations[operation] += 1
        return reply
