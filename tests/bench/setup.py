"""What a benchmark of adapters runs on: the model, the engine and the device. The same load goes to all of them."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.random_adapters import EVERY_LAYER, Kind

SETTLE = 1.5
"""Seconds before each load: vLLM's processes poll for one second after their last step, and would slow the others."""
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}


@dataclass(frozen=True)
class Setup:
    """Where and on what it is measured.

    Attributes:
        model: the base model's directory.
        dtype: what all compute in.
        engine: further arguments of vLLM, for every server alike.
        environment: the variables of `VLLM_*` that every server gets.
        caches: a folder in which each server gets one for what it compiles; None: they share the user's.
        device: where transformers and peft compute.
        dummy: the base has random weights, which nobody reads from a file: the contenders' answers differ.
        adapters: what adapters of random numbers consist of.
        prompts: the token ids that prompts of random tokens are drawn from: ordinary ones, none of them special.
        settle: seconds before each load.
        deadline: when no further round is begun, in seconds of `time.monotonic`; each load has one round at least.
    """

    model: Path
    dtype: str
    engine: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)
    caches: Path | None = None
    device: str = "cpu"
    dummy: bool = False
    adapters: Kind = EVERY_LAYER
    prompts: range = range(1000, 40_000)
    settle: float = SETTLE
    deadline: float = math.inf

    @property
    def arguments(self) -> list[str]:
        """What every server's engine gets."""
        return ["--dtype", self.dtype, *self.engine]

    def variables(self, server: str) -> dict[str, str]:
        """The environment of a server of that name."""
        own = {} if self.caches is None else {"VLLM_CACHE_ROOT": str(self.caches / server)}
        return {**self.environment, **own}

    @property
    def about(self) -> dict[str, object]:
        """What the JSON file tells of it."""
        return {
            "model": self.model.name,
            "dtype": self.dtype,
            "engine": self.engine,
            "environment": self.environment,
            "device": self.device,
            "dummy_weights": self.dummy,
            "settle": self.settle,
        }


def rounds(count: int, deadline: float, least: int = 1) -> Iterator[int]:
    """The numbers of at most `count` rounds; after the first `least`, none is begun past the deadline."""
    for number in range(count):
        if number >= least and time.monotonic() >= deadline:
            return
        yield number


def part(deadline: float, share: float) -> float:
    """A deadline for the first of two things, which gets that share of the time that is left until both are due."""
    now = time.monotonic()
    return now + share * (deadline - now)
