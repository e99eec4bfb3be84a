"""What the speed of proxy-tuning is measured on here: Llama 3.1 8B's shape steered by Llama 3.2 1B's, or tiny ones."""

from dataclasses import dataclass
from pathlib import Path

from loraloom.adapters.base import fingerprint
from tests.bench.arrivals import Stream
from tests.bench.outcome import Outcome
from tests.bench.proxy_contenders import Couple
from tests.bench.proxy_speed import ALL_SIZES, Plan, measure
from tests.bench.random_adapters import random_adapter
from tests.bench.setup import ENVIRONMENT, Setup
from tests.gpu.mixed_batch import Precision
from tests.gpu.models import EIGHT_B, ONE_B, TINY, Shape, write_dummy
from tests.gpu.proxy_mixed import CPU, CUDA
from tests.gpu.setups import KIND, RANK

BOTH = ("--load-format", "dummy", "--max-model-len", "1024", "--no-enable-prefix-caching")
CUDA_ENGINE = (
    *BOTH,
    *("--max-num-seqs", "16", "--max-num-batched-tokens", "8192"),
    *("--gpu-memory-utilization", "0.1", "--kv-cache-memory-bytes", str(2 * 2**30)),
)
"""A cache of a given size, as for the other benchmarks here; three engines and the published way share the GPU."""
CPU_ENGINE = (*BOTH, "--max-num-seqs", "16", "--max-num-batched-tokens", "2048")
ADAPTERS = 4


@dataclass(frozen=True)
class ProxyScale:
    """How large everything is.

    Attributes:
        large, small: the models' shapes.
        dtype: what all compute in.
        engine: vLLM's arguments.
        environment: its variables.
        device: where the published way computes.
        settle: seconds before each load.
        plan: of `proxy_speed`.
        precisions: of the engines of `proxy_mixed`.
    """

    large: Shape
    small: Shape
    dtype: str
    engine: tuple[str, ...]
    environment: dict[str, str]
    device: str
    settle: float
    plan: Plan
    precisions: tuple[Precision, ...]

    def setup(self, folder: Path, deadline: float) -> Setup:
        """What all run on.

        Args:
            folder: an absolute path, which keeps the models and what engines compile.
            deadline: of the rounds.
        """
        return Setup(
            _model(folder, self.large),
            self.dtype,
            self.engine,
            self.environment,
            caches=folder / "compiled",
            device=self.device,
            dummy=True,
            adapters=KIND,
            prompts=self.small.words,
            settle=self.settle,
            deadline=deadline,
        )

    def couple(self, folder: Path) -> Couple:
        """The small model and its adapters, kept in the folder."""
        small = _model(folder, self.small)
        base, kept = fingerprint(small), folder / "steering" / small.name
        names = [f"steering-{number}" for number in range(ADAPTERS)]
        return Couple(small, {name: random_adapter(kept / name, base, RANK, n, KIND) for n, name in enumerate(names)})

    def speed(self, folder: Path, deadline: float) -> Outcome:
        """Proxy-tuning beside the large model alone and beside the published way."""
        return measure(self.setup(folder, deadline), self.couple(folder), self.plan)


def _model(folder: Path, shape: Shape) -> Path:
    return write_dummy(folder / f"llama-{shape.num_hidden_layers}-layers-of-{shape.hidden_size}", shape)


GPU = ProxyScale(
    EIGHT_B,
    ONE_B,
    "bfloat16",
    CUDA_ENGINE,
    {"VLLM_NO_USAGE_STATS": "1"},
    "cuda",
    0.5,
    Plan(ALL_SIZES, Stream(requests=32, gap=0.02), rounds=5, traffic=5, gain=4.0),
    CUDA,
)
DRY = ProxyScale(
    TINY,
    Shape(64, 176, 1, 2, 1, TINY.vocab_size, tie_word_embeddings=True),
    "float32",
    CPU_ENGINE,
    ENVIRONMENT,
    "cpu",
    0.1,
    Plan(dict.fromkeys(ALL_SIZES, (1, 8)), Stream(requests=4, gap=0.02), rounds=1, traffic=1, gain=None),
    CPU,
)
