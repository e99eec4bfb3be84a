"""transformers and peft, as one would serve adapters with them: static batches, mixed by `adapter_names`.

Runs in a process of its own, `python -m tests.bench.peft_batches MODEL DTYPE DEVICE WEIGHTS ADAPTER=FOLDER…`: a JSON
line in is a batch, a JSON line out is its time. WEIGHTS is "file", or "dummy" for random ones of the model's shapes.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.errors import InvalidRun
from tests.bench.setup import Setup

NONE = "__base__"
"""What peft calls no adapter."""


@dataclass(frozen=True)
class Batch:
    """A batch of requests.

    Attributes:
        prompts: the token ids of each.
        adapters: the adapter of each, or `NONE`.
        tokens: how many each answer gets; all wait for the longest.
    """

    prompts: Sequence[Sequence[int]]
    adapters: Sequence[str]
    tokens: int


@dataclass(frozen=True)
class BatchTime:
    """What a batch took, in seconds.

    Attributes:
        first: to the first token of all.
        step: for each further token, the median.
        total: altogether.
    """

    first: float
    step: float
    total: float


@dataclass(frozen=True)
class PeftProcess:
    """The process, ready for batches."""

    process: "subprocess.Popen[str]"

    def run(self, batch: Batch) -> BatchTime:
        """Generate; raises `InvalidRun` if the process has ended."""
        assert self.process.stdin, "it was started with a pipe"
        assert self.process.stdout, "it was started with a pipe"
        print(json.dumps(asdict(batch)), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise InvalidRun("transformers and peft stopped; their own message is above")
        return BatchTime(**json.loads(line))


@contextlib.contextmanager
def started(setup: Setup, adapters: Mapping[str, Path]) -> Iterator[PeftProcess]:
    """Load the model and the adapters; ends the process at last."""
    named = [f"{name}={folder}" for name, folder in adapters.items()]
    command = [sys.executable, "-m", "tests.bench.peft_batches"]
    command += [str(setup.model), setup.dtype, setup.device, "dummy" if setup.dummy else "file", *named]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise InvalidRun("transformers and peft did not start; their own message is above")
            yield PeftProcess(process)
        finally:
            process.kill()


def main(model: str, dtype: str, device: str, weights: str, *named: str) -> None:
    """Load, say so, and generate batch after batch."""
    import torch
    from peft import PeftModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    base = {"file": _read, "dummy": _made}[weights](model, getattr(torch, dtype), device)
    adapters = [each.split("=", 1) for each in named]
    (name, folder), *others = adapters
    served = PeftModel.from_pretrained(base, folder, adapter_name=name)
    for name, folder in others:
        served.load_adapter(folder, adapter_name=name)
    served.to(dtype=getattr(torch, dtype)).eval()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(generated(served, Batch(**json.loads(line))))), flush=True)


def _read(model: str, dtype: Any, device: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(device)


def _made(model: str, dtype: Any, device: str) -> Any:
    """The model with whatever weights transformers begins with, made where they are needed."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device(device):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model), dtype=dtype)


def generated(model: Any, batch: Batch) -> BatchTime:
    """Generate greedily, and look at the clock at every token."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Clock(StoppingCriteria):
        def __call__(self, ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
            if ids.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter())
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    longest = max(map(len, batch.prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in batch.prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in batch.prompts], device=model.device)
    times: list[float] = [time.perf_counter()]
    with torch.inference_mode():
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            adapter_names=list(batch.adapters),
            do_sample=False,
            min_new_tokens=batch.tokens,
            max_new_tokens=batch.tokens,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([Clock()]),
        )
    steps = sorted(after - before for before, after in zip(times[1:], times[2:], strict=False))
    return BatchTime(times[1] - times[0], steps[len(steps) // 2] if steps else 0.0, times[-1] - times[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
