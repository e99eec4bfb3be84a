"""Stores with many adapters of real size: the demo's, each with a little noise of its own."""

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shutil import copy

import torch
from safetensors.torch import load_file, save_file

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.manifest import CONFIG_FILE, WEIGHTS_FILE
from loraloom.adapters.store import Store
from loraloom.demo.catalog import demo_adapters

NOISE = 0.01
"""Standard deviation of what each number is multiplied by, around 1."""
_WRITERS = 8
"""Much of a publication is waiting for the disk."""
_MANY = 100


def names(count: int) -> list[str]:
    """The names in a store of that size, the most popular first; a larger store has those of a smaller, and more."""
    return [f"team-{number % 100:02}/adapter-{number:04}" for number in range(count)]


def task_of(number: int) -> int:
    """Which demo adapter is behind the name of that number."""
    return number % len(demo_adapters())


def filled(
    folder: Path,
    count: int,
    base: BaseFingerprint,
    base_name: str,
    write: Callable[[int, Path], Path] | None = None,
) -> Store:
    """A store of `count` adapters in `folder`; what is there already stays, so the next call takes a moment.

    Args:
        base: the base model, for which they are published.
        base_name: its name.
        write: writes the adapter of a number into a folder, and returns where it is; by default `perturbed`.
    """
    made = write or perturbed
    store, began = Store.open(folder), time.monotonic()
    there = set(store.names())
    missing = [(number, name) for number, name in enumerate(names(count)) if name not in there]
    if len(missing) > _MANY:
        print(f"publishing {len(missing):,} adapters, once: some minutes, and twice their size of disk", flush=True)

    def publish(numbered: tuple[int, str]) -> None:
        with tempfile.TemporaryDirectory(prefix="loraloom-bench-") as scratch:
            store.publish(made(numbered[0], Path(scratch)), numbered[1], base=base, base_name=base_name)

    with _one_thread_each(), ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(publish, missing))
    if len(missing) > _MANY:
        print(f"published in {time.monotonic() - began:.0f} s", flush=True)
    return Store.open(folder)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let torch not spread the small tensors of an adapter over cores that other writers use."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def perturbed(number: int, folder: Path) -> Path:
    """Write a demo adapter whose numbers are each multiplied by 1 plus a little noise, seeded by `number`."""
    adapter = demo_adapters()[task_of(number)]
    source = torch.Generator().manual_seed(number)
    noisy = {
        name: tensor * (1 + NOISE * torch.randn(tensor.shape, generator=source)).to(tensor.dtype)
        for name, tensor in load_file(adapter.folder / WEIGHTS_FILE).items()
    }
    save_file(noisy, folder / WEIGHTS_FILE)
    copy(adapter.folder / CONFIG_FILE, folder)
    return folder
