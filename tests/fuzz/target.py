"""The server to fuzz: one that runs already, or one with the demo model and a few of its adapters."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.demo.catalog import demo_adapters
from loraloom.demo.model import prepare
from tests.e2e.engine import VLLM
from tests.e2e.serving import BASE, serving
from tests.fuzz.server import Fuzzing

CONFIGURATION = "open_paths: [/openapi.json]\nmax_loras: 4\nmax_cpu_loras: 6\nqueue_timeout: 120\n"


@contextmanager
def target(url: str | None, headers: Mapping[str, str]) -> Iterator[Fuzzing]:
    """What to fuzz, for the time of the block.

    Args:
        url: of a server that runs already and serves the demo model; it has to open /openapi.json.
        headers: with every request, such as `Authorization`.
    """
    if url is not None:
        yield Fuzzing(url, None, headers, (BASE,))
        return
    model, adapters = prepare(), demo_adapters()[:3]
    names = [adapter.name for adapter in adapters]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "store")
        store, base = Store.open(folder), fingerprint(model)
        for adapter in adapters:
            store.publish(adapter.folder, adapter.name, base=base, base_name=BASE)
        configuration = Path(scratch, "loraloom.yaml")
        configuration.write_text(CONFIGURATION)
        with serving(model, folder, Path(scratch), ("--config", str(configuration)), VLLM) as running:
            mixture = f"0.5*{names[0]}+0.5*{names[1]}"
            yield Fuzzing(running.url, running.log, headers, (BASE, *names, mixture))
