"""`loraloom serve`."""

import argparse
import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from loraloom.server.access.exposure import check_exposure
from loraloom.server.access.keyring import KeyRing
from loraloom.server.cli.options import configured
from loraloom.server.errors import InvalidSettings
from loraloom.server.kernels.build import CannotBuild, build
from loraloom.server.launch import plan
from loraloom.server.machine import EXPECTED, NO_ENGINE, Machine, inspect
from loraloom.server.settings import Settings
from loraloom.server.store import open_store
from loraloom.server.supervisor import Supervisor, address, listen, say


def serve(options: argparse.Namespace, extra: Sequence[str]) -> int:
    """Serve until stopped."""
    configuration = configured(options)
    if options.print_config:
        print("\n".join(configuration.lines()))
        return 0
    return run(configuration.settings, extra)


def run(settings: Settings, extra: Sequence[str]) -> int:
    """Plan, listen, supervise."""
    machine = inspect()
    check_engine(machine)
    Path(settings.cache).mkdir(parents=True, exist_ok=True)
    keys = KeyRing(open_store(settings)).newest()
    check_exposure(settings.host, keys=bool(keys), insecure=settings.insecure)
    with listen(settings.host, settings.port, settings.client_timeout) as listening:
        settings = settings.model_copy(update={"port": listening.getsockname()[1]})
        launch = plan(settings, extra, machine, os.environ)
        say(f"serving {settings.base_name} with the adapters in {settings.adapters}, vLLM {machine.vllm}")
        for note in (*launch.notes, *build_kernel(settings, machine)):
            say(note)
        say(f"starting on {address(listening)}; this takes a minute or more")
        return asyncio.run(Supervisor(settings, launch, os.environ, listening).run())


def build_kernel(settings: Settings, machine: Machine) -> Iterator[str]:
    """Compile the LoRA kernel for a CPU, the first time; tell what LoRA is computed with there."""
    if not (machine.on_cpu and settings.cpu_kernels):
        return
    try:
        build(settings.cache, machine.flags)
        yield "LoRA: a kernel compiled for this processor"
    except (CannotBuild, OSError) as error:
        yield f"LoRA: computed with torch, which takes longer, because {error}"


def check_engine(machine: Machine) -> None:
    """Warn of an engine that this version does not know.

    Raises:
        InvalidSettings: there is none.
    """
    if machine.vllm is None:
        raise InvalidSettings(NO_ENGINE)
    if not machine.expected_version:
        first, last = (".".join(map(str, minor)) for minor in EXPECTED)
        say(f"warning: vLLM {machine.vllm} is outside of {first} to {last}, which LoraLoom is written for")
