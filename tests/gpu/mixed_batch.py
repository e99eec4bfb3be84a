"""A small Llama of random weights, served with adapters of several ranks, beside transformers and peft.

vLLM's LoRA kernels for CUDA compute in float16 and bfloat16 only. So the base's weights and the adapters' numbers are
float16 numbers, on which the reference computes in float32: what differs is rounding, and can turn an answer only where
the reference's own best two tokens are nearly tied.
"""

import asyncio
import random
import string
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from loraloom.adapters.base import BaseFingerprint, fingerprint
from loraloom.adapters.store import Store
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.random_adapters import LINEAR, Kind, random_adapter
from tests.e2e.mixed import Answers, Case, answers
from tests.e2e.reference import Reference, Transformers, agrees
from tests.e2e.serving import BASE, serving
from tests.gpu.models import SMALL, write_random

RANKS = {"a8": 8, "b16": 16, "c32": 32, "d64": 64, "e8": 8, "f16": 16}
"""The adapters' ranks by their names; there are fewer slots."""
SLOTS = ("--max-loras", "4", "--max-cpu-loras", str(len(RANKS)))
STEPS = (
    *("--max-model-len", "2048", "--max-num-seqs", "16"),
    *("--enable-chunked-prefill", "--max-num-batched-tokens", "64", "--enable-prefix-caching"),
)
"""Small steps and a cache, so that requests of different adapters meet in every step."""
LENGTH = 32
KIND = Kind(LINEAR, "float16", size=0.05)


@dataclass(frozen=True)
class Precision:
    """What the engine computes in.

    Attributes:
        dtype: as vLLM calls it.
        tolerance: how far apart two logits may be that rounding turns. The logits' standard deviation is about 1, the
            best two are 0.26 apart on the mean, and transformers in float16 moved that by 0.005 at most.
        arguments: further ones of vLLM.
    """

    dtype: str
    tolerance: float
    arguments: tuple[str, ...] = ()


CUDA = Precision("float16", 0.02, ("--gpu-memory-utilization", "0.2"))
CPU = Precision("float32", 2e-3)


@dataclass(frozen=True)
class Comparison:
    """Every case's answers.

    Attributes:
        precision: of the engine.
        together: in one mixed batch.
        alone: one after the other.
        reference: what transformers and peft answer.
    """

    precision: Precision
    together: Answers
    alone: Answers
    reference: Mapping[Case, Reference]

    @property
    def wrong(self) -> list[Case]:
        """Those that differ from the reference, in the batch or alone, where it is not nearly tied."""
        return [case for case in self.reference if not all(self._agrees(each[case], case) for each in self._both)]

    @property
    def whole(self) -> int:
        """How many are the reference's to the last token, in the batch and alone."""
        return sum(all(each[case] == tokens.tokens for each in self._both) for case, tokens in self.reference.items())

    @property
    def turned(self) -> list[Case]:
        """Those that the batch answers otherwise than alone."""
        return [case for case in self.reference if self.together[case] != self.alone[case]]

    @property
    def answers(self) -> int:
        """How many different ones there are."""
        return len(set(self.together.values()))

    @property
    def _both(self) -> tuple[Answers, Answers]:
        return self.together, self.alone

    def _agrees(self, tokens: tuple[int, ...], case: Case) -> bool:
        return agrees(tokens, self.reference[case], self.precision.tolerance)


def cases() -> list[Case]:
    """Twenty requests: prompts long and short, the base among the adapters, in changing order."""
    chance = random.Random(0)
    rows = [
        Case(adapter, _text(chance, length)) for length in (10, 60, 250) for adapter in (None, *RANKS)
    ]  # the last, of more than one chunk, for one of each
    return rows[::2] + rows[1::2]


def _text(chance: random.Random, length: int) -> str:
    return "".join(chance.choices(string.ascii_letters + "    ", k=length)).strip()


def compared(precision: Precision, folder: Path) -> Comparison:
    """Serve the model and its adapters, and ask for every case in one batch, alone, and of the reference."""
    model = write_random(folder / "model", SMALL)
    adapters = dict(_adapters(folder / "adapters", fingerprint(model)))
    store = Store.open(folder / "store")
    for name, source in adapters.items():
        store.publish(source, name, base=fingerprint(model), base_name=BASE)
    vllm = ("--dtype", precision.dtype, *STEPS, *precision.arguments)
    with ThreadPoolExecutor(1) as beside, serving(model, folder / "store", folder, SLOTS, vllm) as server:
        expected = beside.submit(references, model, adapters, cases())
        together = asyncio.run(answers(server.url, cases(), LENGTH, together=True))
        alone = asyncio.run(answers(server.url, cases(), LENGTH, together=False))
        return Comparison(precision, together, alone, expected.result())


def _adapters(folder: Path, base: BaseFingerprint) -> Iterator[tuple[str, Path]]:
    for seed, (name, rank) in enumerate(RANKS.items()):
        yield name, random_adapter(folder / name, base, rank, seed, KIND)


def references(model: Path, adapters: Mapping[str, Path], wanted: Sequence[Case]) -> dict[Case, Reference]:
    """What transformers and peft answer in float32, on the processor."""
    transformers = Transformers(model, adapters)
    return {case: transformers.greedy(case.prompt, case.adapter, LENGTH) for case in wanted}


def outcome(comparison: Comparison) -> Outcome:
    """For the JSON file."""
    total = len(comparison.reference)
    figures = {
        "requests": total,
        "different answers": comparison.answers,
        "whole answers of the reference, in the batch and alone": comparison.whole,
        "otherwise in the batch than alone": len(comparison.turned),
        "wrong": len(comparison.wrong),
    }
    precision = comparison.precision
    return Outcome(
        runs=1,
        parameters={
            **{"dtype": precision.dtype, "tolerance": precision.tolerance, "ranks": RANKS, "tokens": LENGTH},
            **{"model": vars(SMALL), "engine": [*SLOTS, *STEPS, *precision.arguments]},
        },
        results=figures,
        samples={
            f"{case.model}: {case.prompt}": {
                "together": comparison.together[case],
                "alone": comparison.alone[case],
                "reference": expected.tokens,
                "margins": expected.margins,
            }
            for case, expected in comparison.reference.items()
        },
        table=Table(("mixed batch", "requests"), tuple((name, str(value)) for name, value in figures.items())),
        notes=(f"{precision.dtype} beside a reference in float32; a near tie is {precision.tolerance} of logits",),
        goals=(
            Goal("answers that differ from transformers and peft where it is no near tie", 0, len(comparison.wrong)),
        ),
    )
