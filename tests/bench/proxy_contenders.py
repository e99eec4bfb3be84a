"""Who is compared in the benchmark of proxy-tuning, and how each is started and asked.

All are up at the same time; what is not asked has nothing to do.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from tests.bench import proxy_published
from tests.bench.lora_overhead import BASE, LORA
from tests.bench.peft_batches import PeftProcess
from tests.bench.servers import LORALOOM, Server, Start, free_port, started
from tests.bench.setup import Setup

ALONE, PROXY, PLAIN, TWO, PUBLISHED = "alone", "proxy", "plain", "two", "published"
ABOUT = {
    ALONE: "LoraLoom, the large model alone",
    PROXY: "LoraLoom, steered by proxy",
    PLAIN: "the same server, plain requests",
    TWO: "LoraLoom, the small model in two passes",
    PUBLISHED: "the published way",
}
"""Each in words, in the order of the tables."""
SERVER = {ALONE: ALONE, PROXY: PROXY, PLAIN: PROXY, TWO: TWO}
"""Which server each asks; the published way has none."""
ALPHAS = (1.0, 0.5, 1.5)
"""The strengths of the requests."""


@dataclass(frozen=True)
class Couple:
    """What steers the large model.

    Attributes:
        small: the small model's directory.
        adapters: its adapters, by their names.
    """

    small: Path
    adapters: Mapping[str, Path]

    def model(self, name: str, number: int) -> str:
        """What a contender's request of that number asks for: the plain large model, or adapters by turns.

        Every adapter is asked for with every strength, before any pair comes again.
        """
        if name in (ALONE, PLAIN):
            return BASE
        turn, place = divmod(number, len(self.adapters))
        return f"{list(self.adapters)[place]}~{ALPHAS[(turn + place) % len(ALPHAS)]:g}"

    @property
    def pairs(self) -> int:
        """How many different pairs of an adapter and a strength there are."""
        return len(self.adapters) * len(ALPHAS)


@dataclass(frozen=True)
class Contenders:
    """All that are up.

    Attributes:
        servers: LoraLoom's.
        published: the published way.
    """

    servers: Sequence[Server]
    published: PeftProcess


@contextlib.contextmanager
def all_started(setup: Setup, couple: Couple, folder: Path) -> Iterator[Contenders]:
    """Start them together and wait until all are ready; ends them at last.

    Args:
        setup: what they run on; its model is the large one.
        couple: what steers it.
        folder: for the store, the caches and the logs.
    """
    store = Store.open(folder / "store")
    for name, source in couple.adapters.items():
        store.publish(source, name, base=fingerprint(couple.small), base_name=couple.small.name)
    with ExitStack() as stack:
        starts = [start(setup, name, couple, store, folder) for name in dict.fromkeys(SERVER.values())]
        servers = [stack.enter_context(started(each, folder)) for each in starts]
        published = stack.enter_context(proxy_published.started(setup, couple.small, couple.adapters))
        for server in servers:
            server.wait_until_ready()
        yield Contenders(servers, published)


def start(setup: Setup, name: str, couple: Couple, store: Store, folder: Path) -> Start:
    """How a contender's server is started; in two passes, the expert is the small model once more."""
    port, small = free_port(), str(couple.small)
    proxy = {ALONE: [], PROXY: ["--proxy-small", small], TWO: ["--proxy-small", small, "--proxy-expert", small]}[name]
    command = [*LORALOOM, str(setup.model), "--served-name", BASE, "--adapters", store.url, "--port", str(port), *LORA]
    command += ["--cache", str(folder / f"cache-{name}"), *proxy, "--", *setup.arguments]
    return Start(name, command, port, setup.variables(name))
