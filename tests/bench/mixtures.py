"""What a mixture costs when it is first asked for and later, what weights do to two tasks, and very many mixtures.

*First token* on a server that does nothing else, in turns: of an adapter of rank 8, of a mixture of four such that was
asked for before, of the same mixture published as an adapter, so of the same rank, and of a mixture of the four that
nobody has asked for yet. *Tasks*: mixtures
of two demo adapters, and how many prompts of each adapter's task they answer right. *Many*: mixtures that go round over
a cache with room for ten; what was evicted is built again, must answer as before, and the folder keeps its bound.
"""

import asyncio
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.demo.catalog import demo_adapters
from loraloom.demo.model import prepare
from tests.bench.estimate import median, paired_difference
from tests.bench.load import ask
from tests.bench.lora_overhead import BASE, NO_CACHE, engine_dtype
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.processes import usage
from tests.bench.registry import Benchmark
from tests.bench.servers import LORALOOM, Server, Start, free_port, started
from tests.bench.setup import ENVIRONMENT
from tests.zoo.tasks import TASKS

FOUR = ("date", "words", "units", "topic")
"""Demo adapters of rank 8."""
PAIR = ("name", "units")
WEIGHTS = ((1.0, 0.0), (0.7, 0.3), (0.5, 0.5), (0.7, 0.7), (1.0, 1.0), (0.3, 0.7), (0.0, 1.0), (0.0, 0.0))
PLAIN, SAME = "an adapter of rank 8", "a mixture of four, published as an adapter"
SEEN, NEW = "the same mixture, asked for before", "a new mixture of four"
KINDS = (PLAIN, SAME, SEEN, NEW)
PUBLISHED = "published"
CACHE = 90 * 2**20
"""Bytes for built mixtures: ten of two adapters of rank 8."""
ENGINE = ("--max-model-len", "512", "--max-num-seqs", "16", "--max-num-batched-tokens", "2048", *NO_CACHE)
PROMPT = "Write this date in ISO format: Jun 23rd, 1958"
AT_ONCE = 8


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: first tokens of each kind.
        prompts: of each task.
        many: different mixtures.
    """

    rounds: int
    prompts: int
    many: int


SHORT, FULL = Size(rounds=20, prompts=20, many=40), Size(rounds=60, prompts=100, many=200)


@dataclass(frozen=True)
class Many:
    """What came of very many mixtures.

    Attributes:
        different: answers in the second round that were not those of the first.
        most_bytes: the most that was in the folder of mixtures.
        memory: MiB of the server's process and of the worker, before and after the second round.
    """

    different: int
    most_bytes: int
    memory: Mapping[str, tuple[float, float]]


def run(folder: Path, full: bool) -> Outcome:
    """Start one server and measure all three parts on it."""
    size, model = FULL if full else SHORT, prepare()
    base = fingerprint(model)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        store = Store.open(Path(scratch, "store"))
        for adapter in demo_adapters():
            store.publish(adapter.folder, adapter.name, base=base, base_name=BASE)
        server = stack.enter_context(started(_start(model, store, Path(scratch, "cache")), Path(scratch)))
        server.wait_until_ready()
        first, tasks, many = asyncio.run(_measured(server, size, Path(scratch, "cache", "scratch")))
    return _outcome(size, first, tasks, many)


def _start(model: Path, store: Store, cache: Path) -> Start:
    port = free_port()
    command = [*LORALOOM, str(model), "--served-name", BASE, "--adapters", store.url, "--port", str(port)]
    command += ["--cache", str(cache), "--max-loras", "8", "--max-cpu-loras", "8", "--mixture-cache-bytes", str(CACHE)]
    return Start("loraloom", [*command, "--", "--dtype", engine_dtype(), *ENGINE], port, ENVIRONMENT)


async def _measured(
    server: Server, size: Size, folder: Path
) -> tuple[dict[str, list[float]], dict[tuple[float, ...], tuple[int, ...]], Many]:
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        return (
            await _first_tokens(client, size.rounds),
            {weights: await _solved(client, weights, size.prompts) for weights in WEIGHTS},
            await _many(client, server, size.many, folder),
        )


async def _first_tokens(client: httpx.AsyncClient, rounds: int) -> dict[str, list[float]]:
    """Seconds to the first token, by what it was asked of."""
    fresh, seen = _new_mixtures(), "+".join(f"0.5*{name}" for name in FOUR)
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    published = await client.post("/v1/mixtures", json={"adapter": seen, "name": PUBLISHED})
    published.raise_for_status()
    for model in (*FOUR, seen, PUBLISHED, next(fresh)):
        await ask(client, _body(model, 1))
    for number in range(rounds):
        for kind in KINDS[:: (1, -1)[number % 2]]:
            model = {PLAIN: FOUR[0], SAME: PUBLISHED, SEEN: seen}.get(kind) or next(fresh)
            seconds[kind].append((await ask(client, _body(model, 1))).first)
            await asyncio.sleep(0.1)
    return seconds


def _new_mixtures() -> Iterator[str]:
    source = random.Random(0)
    while True:
        yield "+".join(f"{source.uniform(0.2, 0.8):.6f}*{name}" for name in FOUR)


def _body(model: str, tokens: int) -> dict[str, object]:
    return {"model": model, "prompt": PROMPT, "temperature": 0, "max_tokens": tokens, "stream": True}


async def _solved(client: httpx.AsyncClient, weights: Sequence[float], prompts: int) -> tuple[int, ...]:
    """How many held-out prompts of each adapter's task a mixture answers right, in percent."""
    model = "+".join(f"{weight}*{name}" for weight, name in zip(weights, PAIR, strict=True))
    found = []
    for name in PAIR:
        _, held_out = TASKS[name].split(0)
        examples = held_out[:prompts]
        answers = await _answers(client, [(model, example.prompt) for example in examples], tokens=24)
        right = sum(example.accepts(answer) for example, answer in zip(examples, answers, strict=True))
        found.append(round(100 * right / len(examples)))
    return tuple(found)


async def _answers(client: httpx.AsyncClient, wanted: Sequence[tuple[str, str]], tokens: int) -> list[str]:
    """Greedy answers, a few at a time."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def answer(model: str, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": tokens}
        async with turns:
            reply = await client.post("/v1/chat/completions", json=body)
        reply.raise_for_status()
        return str(reply.json()["choices"][0]["message"]["content"])

    return list(await asyncio.gather(*(answer(*each) for each in wanted)))


async def _many(client: httpx.AsyncClient, server: Server, count: int, folder: Path) -> Many:
    """Ask as many mixtures twice as fit the cache twenty times over."""
    mixtures = [f"{0.3 + 0.6 * n / count:.6f}*date+{0.9 - 0.6 * n / count:.6f}*words" for n in range(count)]
    most = 0

    async def round_of(order: Sequence[str]) -> dict[str, str]:
        nonlocal most
        found = {}
        for at in range(0, count, AT_ONCE):
            group = order[at : at + AT_ONCE]
            answers = await _answers(client, [(mixture, PROMPT) for mixture in group], tokens=12)
            found |= dict(zip(group, answers, strict=True))
            most = max(most, await asyncio.to_thread(_stored, folder))
        return found

    first = await round_of(mixtures)
    before = usage(server.process.pid)
    second = await round_of(mixtures[::-1])
    after = usage(server.process.pid)
    memory = {role: (before[role].own, after[role].own) for role in before if role in ("server", "worker")}
    return Many(sum(first[each] != second[each] for each in mixtures), most, memory)


def _stored(folder: Path) -> int:
    """Bytes in a folder, of which some may be about to go."""
    sizes = []
    for file in folder.rglob("*.safetensors"):
        try:
            sizes.append(file.stat().st_size)
        except FileNotFoundError:
            continue
    return sum(sizes)


def _outcome(
    size: Size,
    first: Mapping[str, Sequence[float]],
    tasks: Mapping[tuple[float, ...], tuple[int, ...]],
    many: Many,
) -> Outcome:
    milliseconds = {kind: [1000 * each for each in seconds] for kind, seconds in first.items()}
    added = {
        f"{kind}, to {other}": paired_difference(milliseconds[kind], milliseconds[other])
        for kind, other in ((NEW, PLAIN), (SEEN, PLAIN), (SEEN, SAME))
    }
    new, seen = added[f"{NEW}, to {PLAIN}"], added[f"{SEEN}, to {SAME}"]
    rows = [(f"first token of {kind}, ms", f"{median(each).value:.1f}", "") for kind, each in milliseconds.items()]
    rows += [
        (" + ".join(f"{weight:g} {name}" for weight, name in zip(weights, PAIR, strict=True)), *map(str, right))
        for weights, right in tasks.items()
    ]
    grown = {role: after - before for role, (before, after) in many.memory.items()}
    return Outcome(
        runs=size.rounds,
        parameters={"engine": ENGINE, "dtype": engine_dtype(), "four": FOUR, "cache": CACHE, **asdict(size)},
        results={
            "milliseconds added to the first token": {kind: asdict(each) for kind, each in added.items()},
            "percent right": {str(weights): dict(zip(PAIR, right, strict=True)) for weights, right in tasks.items()},
            "many": asdict(many),
        },
        samples={"milliseconds": milliseconds},
        table=Table(("", *(f"{name}, % right" for name in PAIR)), tuple(rows)),
        notes=(
            *(
                f"first token of {pair}: {each.value:+.1f} ms [{each.low:+.1f}, {each.high:+.1f}]"
                for pair, each in added.items()
            ),
            f"{size.prompts} held-out prompts of each task",
            f"{size.many} mixtures twice over a cache of ten: {many.different} answers differ, at most "
            f"{many.most_bytes / 2**20:.0f} MiB on the disk of {CACHE / 2**20:.0f}; memory of the second round "
            + ", ".join(f"{role} {mib:+.0f} MiB" for role, mib in grown.items()),
        ),
        goals=(
            Goal("ms that a new mixture of four adds to the first token", 150, new.value),
            Goal("ms that one asked for before surely adds to that of an adapter of its rank", 0, seen.low),
            Goal("ms that it may add at most, by the interval's other end", 5, seen.high),
            Goal("answers of mixtures that were built again and differ", 0, many.different),
            Goal("MiB of mixtures on the disk", CACHE / 2**20, many.most_bytes / 2**20),
        ),
    )


BENCHMARK = Benchmark("mixtures", "mixtures: the first use, the next, two tasks, and very many", run)
