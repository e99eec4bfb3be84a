"""What the benchmarks run on here: a Llama of 7B's shape on a GPU; and a tiny one on a processor, as a rehearsal.

The adapters change q_proj and v_proj of every layer, as those of LoRA's paper do (arXiv 2106.09685). Of rank 16 and of
a 7B that is 16.8 MB each, all with numbers of their own: a store keeps them as given and in its normal form, so 1,000
take 34 GB of disk.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from tests.bench import adapters_scaling, lora_overhead
from tests.bench.arrivals import Stream
from tests.bench.lora_overhead import Case
from tests.bench.outcome import Outcome
from tests.bench.random_adapters import Kind, random_adapter
from tests.bench.setup import ENVIRONMENT, Setup
from tests.bench.zoo_store import filled
from tests.gpu.mixed_batch import CPU, CUDA, Precision
from tests.gpu.models import SEVEN_B, TINY, Shape, write_dummy

RANK = 16
KIND = Kind(("q_proj", "v_proj"), "float16")
BOTH = ("--load-format", "dummy", "--max-model-len", "1024", "--no-enable-prefix-caching")
CUDA_ENGINE = (
    *BOTH,
    *("--max-num-seqs", "32", "--max-num-batched-tokens", "8192"),
    *("--gpu-memory-utilization", "0.1", "--kv-cache-memory-bytes", str(8 * 2**30)),
)
"""A cache of a given size: engines that start together would count each other's memory when they look for room."""
CPU_ENGINE = (*BOTH, "--max-num-seqs", "16", "--max-num-batched-tokens", "2048")


def cases(*each: tuple[int, int]) -> tuple[Case, ...]:
    """Cases of so many adapters and so many requests."""
    return tuple(Case(adapters, batch, RANK) for adapters, batch in each)


def no_goals(*_: object) -> "tuple[()]":
    """On a GPU the kernels are vLLM's own: what they cost is measured, and nothing is demanded."""
    return ()


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        shape: the base model's.
        dtype: what all compute in.
        engine: vLLM's arguments.
        environment: its variables.
        device: where peft computes.
        settle: seconds before each load.
        overhead: the plan of `lora_overhead`.
        scaling: the plan of `adapters_scaling`.
        precision: of the mixed batch.
    """

    shape: Shape
    dtype: str
    engine: tuple[str, ...]
    environment: dict[str, str]
    device: str
    settle: float
    overhead: lora_overhead.Plan
    scaling: adapters_scaling.Plan
    precision: Precision


def _overhead(each: tuple[Case, ...], rounds: int, stream: Stream) -> lora_overhead.Plan:
    return lora_overhead.Plan(
        each,
        each,
        each,
        (RANK,),
        rounds,
        rounds,
        stream=stream,
        warmed=(lora_overhead.OURS, lora_overhead.STOCK, lora_overhead.PEFT),
        timed=lora_overhead.mean_timing,
        goals=no_goals,
    )


GPU = Scale(
    SEVEN_B,
    "bfloat16",
    CUDA_ENGINE,
    {"VLLM_NO_USAGE_STATS": "1"},
    "cuda",
    0.5,
    _overhead(cases((1, 8), (4, 8), (16, 16), (16, 32)), 5, Stream(requests=32, gap=0.02, rank=RANK)),
    replace(adapters_scaling.SHORT, pairs=30, rounds=6),
    CUDA,
)
DRY = Scale(
    TINY,
    "float32",
    CPU_ENGINE,
    ENVIRONMENT,
    "cpu",
    0.1,
    _overhead(cases((4, 8)), 1, Stream(requests=4, gap=0.02, rank=RANK)),
    replace(adapters_scaling.SHORT, pairs=2, rounds=1),
    CPU,
)


@dataclass(frozen=True)
class Place:
    """The two benchmarks at one scale, in a folder that keeps the model, the adapters and what engines compile.

    Attributes:
        scale: how large everything is.
        folder: an absolute path.
    """

    scale: Scale
    folder: Path

    def model(self) -> Path:
        """The base model's folder, by whose name the JSON files tell its sizes."""
        shape = self.scale.shape
        return write_dummy(self.folder / f"llama-{shape.num_hidden_layers}-layers-of-{shape.hidden_size}", shape)

    def setup(self, deadline: float) -> Setup:
        """For either benchmark; the deadline is that of its rounds."""
        scale = self.scale
        return Setup(
            self.model(),
            scale.dtype,
            scale.engine,
            scale.environment,
            caches=self.folder / "compiled",
            device=scale.device,
            dummy=True,
            adapters=KIND,
            prompts=scale.shape.words,
            settle=scale.settle,
            deadline=deadline,
        )

    def store(self, count: int) -> Store:
        """A store of that many adapters; those that are there stay."""
        base = fingerprint(self.model())
        return filled(
            self.folder / "stores" / f"random-{count}",
            count,
            base,
            adapters_scaling.BASE,
            lambda number, scratch: random_adapter(scratch / "adapter", base, RANK, number, KIND),
        )

    def fill(self) -> None:
        """Fill every store that `adapters_scaling` asks for."""
        for size in (size for sizes in self.scale.scaling.groups for size in sizes):
            self.store(size)

    def lora_overhead(self, deadline: float) -> Outcome:
        """Adapters beside none, and beside vLLM's own server and peft."""
        return lora_overhead.measure(self.setup(deadline), self.scale.overhead, self.folder)

    def adapters_scaling(self, deadline: float) -> Outcome:
        """Many adapters beside few."""
        outcome = adapters_scaling.measure(self.setup(deadline), self.scale.scaling, self.store, judged=False)
        return replace(outcome, parameters={**outcome.parameters, "adapters": {"rank": RANK, **asdict(KIND)}})

    @property
    def benchmarks(self) -> dict[str, Callable[[float], Outcome]]:
        """Both, by their names."""
        return {"lora_overhead": self.lora_overhead, "adapters_scaling": self.adapters_scaling}
