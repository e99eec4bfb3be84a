"""Proxy-tuning in one mixed batch, as an engine in float16 or bfloat16 computes it, beside three models in float32.

All weights and all numbers of adapters are such as float16, bfloat16 and float32 have alike, so what differs is the
engine's rounding. Two measures, for every token that the engine answers: how much its logit is below that of the
reference's best token, which is more than 0 only where rounding turns a near tie; and how far its log-probability is
from the reference's.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from safetensors.numpy import load_file, save_file

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.random_adapters import LINEAR, Kind, random_adapter
from tests.e2e.serving import serving
from tests.gpu.mixed_batch import LENGTH, STEPS, Precision
from tests.gpu.models import SMALL, Shape, coarse, write_random
from tests.gpu.proxy_cases import Answer, Case, Judgement, Reference, cases

LITTLE = Shape(256, 704, 3, 4, 2, SMALL.vocab_size)
"""The small model, of other depth, width and heads than the large one, `SMALL`."""
STEERING, DIRECT = {"one": 8, "two": 32}, {"own": 16}
"""The adapters' ranks, of the small and of the large model."""
SLOTS = ("--max-loras", "4", "--max-cpu-loras", "16")
"""Fewer slots than there are adapters with a strength."""
KIND = Kind(LINEAR, "float16", size=0.05)
SHARE = ("--gpu-memory-utilization", "0.2")

CUDA = (
    Precision("float16", 0.01, SHARE),
    Precision("bfloat16", 0.08, SHARE),
    Precision("float16", 0.01, (*SHARE, "--enforce-eager")),
)
"""The engine as vLLM starts it, compiled and with CUDA graphs, and once without.

bfloat16 has 3 binary digits less. On a processor, the engine was off by 0.0039 in float16 and by 0.032 in bfloat16 at
most where nothing steered; the logits' standard deviation is about 1.
"""
CPU = (Precision("float32", 2e-3),)


@dataclass(frozen=True)
class Comparison:
    """Every answer of one engine.

    Attributes:
        precision: of the engine; its tolerance is for one model's logits.
        answers: the engine's.
        judgements: beside the reference.
    """

    precision: Precision
    answers: Mapping[Case, Answer]
    judgements: Mapping[Case, Judgement]

    def tolerance(self, case: Case) -> float:
        """How far a logit may be off: the strength multiplies the small models' errors."""
        return self.precision.tolerance * (1 + abs(case.alpha))

    @property
    def wrong(self) -> list[Case]:
        """Requests of which some token is further off than rounding explains."""
        return [case for case in self.judgements if self.worst(case) > 1]

    def worst(self, case: Case) -> float:
        """The largest error of a request's tokens, as a multiple of what is tolerated."""
        judged = self.judgements[case]
        return max(*judged.short, *judged.off) / self.tolerance(case)

    @property
    def turned(self) -> int:
        """Tokens that are not the reference's best."""
        return sum(short > 0 for judged in self.judgements.values() for short in judged.short)

    @property
    def different(self) -> int:
        """Different answers."""
        return len({answer.tokens for answer in self.answers.values()})

    @property
    def name(self) -> str:
        """The type, and whether it was without graphs."""
        eager = "--enforce-eager" in self.precision.arguments
        return f"{self.precision.dtype}, eager" if eager else self.precision.dtype


@dataclass(frozen=True)
class Material:
    """Models and adapters on the disk.

    Attributes:
        models: the directories of the large and of the small one.
        steering, direct: adapters of the small and of the large one.
    """

    models: tuple[Path, Path]
    steering: Mapping[str, Path]
    direct: Mapping[str, Path]

    def store(self, folder: Path) -> None:
        """Publish all adapters there."""
        store = Store.open(folder)
        for model, adapters in zip(self.models, (self.direct, self.steering), strict=True):
            for name, source in adapters.items():
                store.publish(source, name, base=fingerprint(model), base_name=model.name)


def material(folder: Path) -> Material:
    """Make it; the same numbers each time."""
    large = write_random(folder / "large", SMALL, 0, coarse)
    small = write_random(folder / "small", LITTLE, 1, coarse)
    return Material((large, small), _adapters(folder, small, STEERING), _adapters(folder, large, DIRECT))


def _adapters(folder: Path, model: Path, ranks: Mapping[str, int]) -> dict[str, Path]:
    base = fingerprint(model)
    made = {name: random_adapter(folder / name, base, rank, rank, KIND) for name, rank in ranks.items()}
    for adapter in made.values():
        weights = adapter / "adapter_model.safetensors"
        save_file({name: coarse(each) for name, each in load_file(weights).items()}, weights)
    return made


def compared(precisions: Sequence[Precision], folder: Path) -> list[Comparison]:
    """Serve the pair in each precision, and ask for every case in one batch."""
    made = material(folder)
    made.store(folder / "store")
    reference = Reference(made.models, made.steering, made.direct)
    wanted = cases(SMALL.words, list(STEERING), *DIRECT)
    large, small = made.models
    found = []
    for number, precision in enumerate(precisions):
        vllm = ("--dtype", precision.dtype, *STEPS, *precision.arguments)
        own = folder / str(number)
        own.mkdir()
        with serving(large, folder / "store", own, (*SLOTS, "--proxy-small", str(small)), vllm) as server:
            answers = asyncio.run(answered(server.url, wanted))
        judgements = {case: reference.judged(case, answer) for case, answer in answers.items()}
        found.append(Comparison(precision, answers, judgements))
    return found


async def answered(url: str, wanted: Sequence[Case]) -> dict[Case, Answer]:
    """Greedy answers of `LENGTH` tokens, all asked for at the same time."""
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:

        async def ask(case: Case) -> Answer:
            fixed = {"temperature": 0, "max_tokens": LENGTH, "ignore_eos": True, "logprobs": 1}
            body = {"model": case.model, "prompt": case.prompt, "return_token_ids": True, **fixed}
            reply = await client.post("/v1/completions", json=body)
            assert reply.status_code == 200, reply.text
            choice = reply.json()["choices"][0]
            return Answer(tuple(choice["token_ids"]), tuple(choice["logprobs"]["token_logprobs"]))

        return dict(zip(wanted, await asyncio.gather(*map(ask, wanted)), strict=True))


def outcome(comparisons: Sequence[Comparison]) -> Outcome:
    """For the JSON file."""
    figures = {each.name: _figures(each) for each in comparisons}
    head = list(next(iter(figures.values())))
    return Outcome(
        runs=1,
        parameters={
            **{"large": vars(SMALL), "small": vars(LITTLE), "ranks": {**STEERING, **DIRECT}, "tokens": LENGTH},
            "engines": {each.name: [*SLOTS, *STEPS, *each.precision.arguments] for each in comparisons},
        },
        results=figures,
        samples={each.name: _samples(each) for each in comparisons},
        table=Table(
            ("mixed batch by proxy", *head),
            tuple((name, *(f"{values[key]:g}" for key in head)) for name, values in figures.items()),
        ),
        notes=("beside a reference in float32; tolerated is `tolerance` * (1 + alpha) of logits",),
        goals=tuple(
            Goal(f"requests in {each.name} of which some token is wrong", 0, len(each.wrong)) for each in comparisons
        ),
    )


def _figures(comparison: Comparison) -> dict[str, float]:
    return {
        "requests": len(comparison.judgements),
        "different answers": comparison.different,
        "tokens turned": comparison.turned,
        "tolerance": comparison.precision.tolerance,
        "worst, of what is tolerated": round(max(map(comparison.worst, comparison.judgements)), 3),
        "wrong": len(comparison.wrong),
    }


def _samples(comparison: Comparison) -> dict[str, object]:
    return {
        f"{case.model}, {len(case.prompt)} tokens": {
            "tokens": comparison.answers[case].tokens,
            "short": judged.short,
            "off": judged.off,
        }
        for case, judged in comparison.judgements.items()
    }
