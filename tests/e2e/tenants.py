"""A server with keys: two teams, each with adapters of its own, and what it writes down of what they do."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.demo.catalog import demo_adapters
from loraloom.server.access.keyring import KeyRing
from loraloom.server.access.records import Terms
from tests.e2e.collector import Collector
from tests.e2e.serving import BASE, Server, chat_body, eventually, serving

CHAT = "/v1/chat/completions"
DEMO = {adapter.name: adapter for adapter in demo_adapters()}
SHARED = "public/sql"
OWN = {"red": ("red/date", "red/words"), "blue": ("blue/home", "blue/money")}
SEATS, PLACES = 8, 2
CLIENT_TIMEOUT = 3
MOST = 1500
ENDLESS = {"max_tokens": MOST, "ignore_eos": True}
"""An answer that takes minutes."""
OPERATOR = "operator"
"""Who runs the commands, whether or not the account of the tests has a name."""
TERMS = {
    "admin": Terms(role="admin", adapters=("*",)),
    "red": Terms(role="publish", adapters=("red/*", "public/*"), publish=("red/*",)),
    "blue": Terms(role="infer", adapters=("blue/*", "public/*")),
    "green": Terms(role="publish", adapters=("green/*",)),
    "chef": Terms(role="publish", adapters=("red/*",), publish=("chef/*",)),
    "prometheus": Terms(role="monitor", adapters=("*",)),
    "hasty": Terms(adapters=("public/*",), rpm=60),
    "single": Terms(adapters=("public/*",), concurrency=1),
    "frugal": Terms(adapters=("public/*",), tpm=600),
}
"""What each key may do. The last three have one limit each; `green` has nothing of its own yet."""
VLLM = (
    *("--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", str(SEATS)),
    *("--enable-prefix-caching", "--enable-prompt-tokens-details"),
)

PATIENCE = 300.0
"""Seconds within which something happens, however busy the machine is."""

Labels = dict[str, str]


@dataclass(frozen=True)
class Tenants:
    """The running server.

    Attributes:
        secrets: of each key, as clients send them.
        usage: the folder of the ledger.
        spans: what it has told of its requests by OpenTelemetry.
    """

    server: Server
    secrets: dict[str, str] = field(repr=False)
    usage: Path
    spans: Collector

    def headers(self, key: str) -> dict[str, str]:
        """How a key is sent."""
        return {"authorization": f"Bearer {self.secrets[key]}"}

    def client(self, key: str) -> httpx.Client:
        """An HTTP client with a key."""
        return httpx.Client(base_url=self.server.url, timeout=300, headers=self.headers(key))

    def async_client(self, key: str) -> httpx.AsyncClient:
        """The same for coroutines."""
        return httpx.AsyncClient(base_url=self.server.url, timeout=300, headers=self.headers(key))

    def command(self, *words: str) -> str:
        """What `loraloom …` prints, on the server's store and ledger."""
        where = {"LORALOOM_ADAPTERS": str(self.server.store), "LORALOOM_USAGE": str(self.usage)}
        variables = {**where, "LOGNAME": OPERATOR}
        line = [sys.executable, "-m", "loraloom.server.cli", *words]
        result = subprocess.run(
            line, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **variables}
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def scrape(self) -> str:
        """/metrics, as Prometheus gets it."""
        reply = httpx.get(f"{self.server.url}/metrics", headers=self.headers("prometheus"), timeout=60)
        assert reply.status_code == 200, reply.text
        return reply.text

    def samples(self, name: str) -> list[tuple[Labels, float]]:
        """A metric's samples now."""
        families = text_string_to_metric_families(self.scrape())
        return [(one.labels, one.value) for family in families for one in family.samples if one.name == name]

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        return sum(value for given, value in self.samples(name) if labels.items() <= given.items())

    def lines(self) -> list[dict[str, Any]]:
        """The ledger's lines so far."""
        return [json.loads(line) for file in sorted(self.usage.iterdir()) for line in file.read_text().splitlines()]

    async def line(self, id: str) -> dict[str, Any]:
        """The ledger's line of a request; it is written within a second after that has ended."""

        async def written() -> bool:
            return any(line["id"] == id for line in self.lines())

        await eventually(written, PATIENCE)
        return next(line for line in self.lines() if line["id"] == id)

    async def in_order(self, ids: Collection[str]) -> list[str]:
        """Requests in the order in which they ended, whenever their answers have been read."""
        for id in ids:
            await self.line(id)
        return [line["id"] for line in self.lines() if line["id"] in ids]

    def ids(self, key: str) -> set[str]:
        """The requests of a key in the ledger so far."""
        return {line["id"] for line in self.lines() if line["key"] == key}

    async def line_besides(self, known: set[str], key: str) -> dict[str, Any]:
        """The ledger's line of the only request of a key that is not known; for those whose answer nobody has seen."""

        async def written() -> bool:
            return self.ids(key) > known

        await eventually(written, PATIENCE)
        (id,) = self.ids(key) - known
        return await self.line(id)

    def logged(self) -> list[dict[str, Any]]:
        """What the log says of requests so far."""
        lines = self.server.log.read_text(errors="replace").splitlines()
        found = [json.loads(line) for line in lines if line.startswith('{"time"')]
        return [line for line in found if line["logger"] == "vllm.loraloom.requests"]

    async def until_computing(self, key: str) -> None:
        """Wait until the engine works on a request of a key, where there are no others."""

        async def computing() -> bool:
            both = self.total("loraloom_running_requests", key=key), self.total("vllm:num_requests_running")
            return all(both)

        await eventually(computing, PATIENCE)

    async def until_idle(self, key: str) -> None:
        """Wait until nothing of a key runs any more, neither at the gate nor in the engine."""

        async def idle() -> bool:
            return not (self.total("loraloom_running_requests", key=key) or self.total("vllm:num_requests_running"))

        await eventually(idle, PATIENCE)

    async def until(self, number: int, state: str, key: str) -> None:
        """Wait until so many requests of a key are `running` or `waiting`."""

        async def there() -> bool:
            return self.total(f"loraloom_{state}_requests", key=key) == number

        await eventually(there, PATIENCE)

    @contextmanager
    def unread(self, key: str, body: Mapping[str, object]) -> Iterator[socket.socket]:
        """Ask without reading a byte of the answer, with as little room for it on the way as can be had."""
        address = httpx.URL(self.server.url)
        raw = json.dumps(body).encode()
        headers = {**self.headers(key), "host": address.host, "content-type": "application/json"}
        lines = [f"POST {CHAT} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        with socket.socket() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((address.host, address.port))
            connection.sendall("\r\n".join([*lines, f"content-length: {len(raw)}", "", ""]).encode() + raw)
            yield connection


@contextmanager
def serving_tenants(model: Path, folder: Path, spans: Collector) -> Iterator[Tenants]:
    """Start a server with the keys of `TERMS`, and end it."""
    store = Store.open(folder / "store")
    base = fingerprint(model)
    for name in (*OWN["red"], *OWN["blue"], SHARED):
        store.publish(DEMO[name.partition("/")[2]].folder, name, base=base, base_name=BASE)
    ring = KeyRing(store)
    secrets = {name: ring.create(name, terms, "setup").text for name, terms in TERMS.items()}
    arguments = ("--max-loras", str(PLACES), "--max-cpu-loras", "6", "--queue-timeout", "120", "--drain-timeout", "60")
    variables = {
        "LORALOOM_USAGE": str(folder / "usage"),
        "LORALOOM_LOG_FORMAT": "json",
        "LORALOOM_CLIENT_TIMEOUT": str(CLIENT_TIMEOUT),
        "LORALOOM_OTLP_TRACES_ENDPOINT": spans.url,
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
    }
    with serving(model, folder / "store", folder, arguments, VLLM, variables) as server:
        yield Tenants(server, secrets, folder / "usage", spans)


@asynccontextmanager
async def stream(
    client: httpx.AsyncClient, body: Mapping[str, object]
) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[str]]]:
    """A chat's answer as it comes, in lines."""
    async with client.stream("POST", CHAT, json={**body, "stream": True}) as reply:
        assert reply.status_code == 200, await reply.aread()
        yield reply, reply.aiter_lines()


@asynccontextmanager
async def holding(client: httpx.AsyncClient, seats: int) -> AsyncIterator[None]:
    """Ask for so many answers at a time as are seats to be held, and leave without them at the end of the block."""
    body = chat_body(BASE, "Tell me a story.", **ENDLESS) | {"n": seats, "temperature": 1}
    asked = asyncio.ensure_future(client.post(CHAT, json=body))
    try:
        yield
        assert not asked.done(), "what was to hold the seats has ended before"
    finally:
        asked.cancel()
        await asyncio.wait({asked})


def question(adapter: str, number: int = 0) -> tuple[str, str]:
    """What to ask an adapter, and its answer."""
    return DEMO[adapter.partition("/")[2]].examples[number]


def answer_in(reply: httpx.Response) -> str:
    """What was answered in a chat."""
    assert reply.status_code == 200, reply.text
    content: str = reply.json()["choices"][0]["message"]["content"]
    return content


def chunks_in(lines: Sequence[str]) -> list[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events."""
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
