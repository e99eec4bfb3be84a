"""`loraloom demo`: from nothing to a table of answers, on any machine."""

import argparse
import asyncio
import json
import os
import shlex
import socket
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.demo.catalog import DemoAdapter, demo_adapters
from loraloom.demo.model import DemoModelError, prepare
from loraloom.server.errors import EngineUnavailable, ServerError
from loraloom.server.launch import plan
from loraloom.server.machine import inspect
from loraloom.server.settings import Settings, cache_home, configure
from loraloom.server.supervisor import Supervisor, address, listen

NAME = "smollm2"
BASE_QUESTION = ("What is the capital of France?", "Paris")
VLLM = ("--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "16")


@dataclass(frozen=True)
class Row:
    """One request of the mixed batch."""

    model: str
    prompt: str
    expected: str
    answer: str = ""

    @property
    def right(self) -> bool:
        """Whether the answer is the expected one; of the plain base, whether it is in there."""
        return self.expected in self.answer if self.model == NAME else self.answer == self.expected


def demo(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Prepare, serve, ask, show, stay."""
    step(1, "the demo model, SmolLM2-135M-Instruct")
    try:
        model = prepare(progress=lambda text: print(f"      {text}", flush=True))
    except DemoModelError as error:
        raise ServerError(str(error)) from error
    store = options.adapters or str(cache_home() / "demo/store")
    step(2, f"the demo adapters, in {store}")
    fill(Store.open(store), model)
    flags = {
        "model": str(model),
        "served_name": NAME,
        "adapters": store,
        "host": options.host,
        "port": options.port,
    }
    settings = configure(flags, options.config).settings
    return asyncio.run(_serve_and_ask(settings, stay=not options.once))


def step(number: int, text: str) -> None:
    """Announce one of the long steps."""
    print(f"[{number}/4] {text}", flush=True)


def fill(store: Store, model: Path) -> None:
    """Publish every demo adapter; those that are there already stay as they are."""
    base = fingerprint(model)
    for adapter in demo_adapters():
        published = store.publish(adapter.folder, adapter.name, base=base, base_name=NAME, by="demo")
        print(f"      {published.version.canonical:12} {adapter.task}", flush=True)


async def _serve_and_ask(settings: Settings, *, stay: bool) -> int:
    log_path = cache_home() / "demo/server.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("wb") as log, listen(settings.host, settings.port, settings.client_timeout) as listening:
        settings = settings.model_copy(update={"port": listening.getsockname()[1]})
        url = address(listening)
        _reach_directly(settings.host)
        step(3, f"the server on {url}; vLLM takes about a minute to start (its log: {log_path})")
        async with _served(settings, listening, log) as supervisor:
            showing = asyncio.ensure_future(_show(url))
            await asyncio.wait((supervisor, showing), return_when=asyncio.FIRST_COMPLETED)
            if supervisor.done():  # by Ctrl-C, or because the server did not start
                showing.cancel()
                return supervisor.result()
            rows = await showing
            if stay:
                print(calls(url, rows[1]), flush=True)
                return await supervisor
            return 0 if all(row.right for row in rows) else 1


def _reach_directly(host: str) -> None:
    """Let no proxy of the user's stand between this process and its own server."""
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), host)))


async def _show(url: str) -> list[Row]:
    await _wait_until_ready(url)
    step(4, "one batch: the plain base and every adapter at once")
    rows = await ask(url, questions(demo_adapters()))
    print(table(rows))
    return rows


@asynccontextmanager
async def _served(settings: Settings, listening: socket.socket, log: IO[bytes]) -> AsyncIterator["asyncio.Task[int]"]:
    launch = plan(settings, VLLM, inspect(), os.environ)
    supervisor = Supervisor(settings, launch, os.environ, listening, output=log)
    task = asyncio.ensure_future(supervisor.run())
    try:
        yield task
    finally:
        supervisor.stop()
        await task


async def _wait_until_ready(url: str) -> None:
    """Poll /ready, with a sign of life; at most ten minutes."""
    began = time.monotonic()
    while time.monotonic() - began < 600:
        if await asyncio.to_thread(_ready, url):
            print(f"\r      ready after {time.monotonic() - began:.0f} s", flush=True)
            return
        if sys.stdout.isatty():
            print(f"\r      {time.monotonic() - began:3.0f} s", end="", flush=True)
        await asyncio.sleep(1)
    raise EngineUnavailable("the server was not ready within ten minutes: its log, named above, says why")


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=5):
            return True
    except OSError:
        return False


def questions(adapters: Sequence[DemoAdapter]) -> list[Row]:
    """One request to the plain base, and one to each adapter, of those that it was not trained on."""
    plain = Row(NAME, *BASE_QUESTION)
    return [plain, *(Row(adapter.name, *adapter.examples[0]) for adapter in adapters)]


async def ask(url: str, rows: Sequence[Row]) -> list[Row]:
    """Send all requests at once, as any OpenAI client would."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

        async def answer(row: Row) -> Row:
            reply = await client.chat.completions.create(
                model=row.model,
                messages=[{"role": "user", "content": row.prompt}],
                temperature=0,
                max_tokens=64,
            )
            return Row(row.model, row.prompt, row.expected, (reply.choices[0].message.content or "").strip())

        return list(await asyncio.gather(*(answer(row) for row in rows)))


def table(rows: Sequence[Row]) -> str:
    """The rows as text: request, adapter, answer, expected answer."""
    head = ("request", "adapter", "answer", "expected", "")
    cells = [
        (
            _cut(r.prompt, 48),
            "(base)" if r.model == NAME else r.model,
            _cut(r.answer, 40),
            _cut(r.expected, 40),
            _mark(r),
        )
        for r in rows
    ]
    widths = [max(len(line[i]) for line in (head, *cells)) for i in range(len(head))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (head, *cells)]
    rule = "-+-".join("-" * width for width in widths)
    return "\n".join(["", lines[0], rule, *lines[1:], ""])


def calls(url: str, row: Row) -> str:
    """How to call the server."""
    body = {"model": row.model, "temperature": 0, "messages": [{"role": "user", "content": row.prompt}]}
    return f"""Ask it yourself, from another terminal:

  curl {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d {shlex.quote(json.dumps(body, ensure_ascii=False))}

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="none")
  reply = client.chat.completions.create(
      model="{row.model}@1", temperature=0, messages=[{{"role": "user", "content": {row.prompt!r}}}])
  print(reply.choices[0].message.content)

  curl {url}/v1/models        # every adapter that `model` may name; 0.7*name+0.7*units mixes two
  Ctrl-C ends the server."""


def _cut(text: str, width: int) -> str:
    flat = text.replace("\n", "⏎")
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def _mark(row: Row) -> str:
    return "✓" if row.right else "✗"
