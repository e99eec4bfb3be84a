"""Proxy-tuning as it is published: three models of transformers in lockstep, in static batches.

The large model, the expert (the small model with peft's adapters) and the antiexpert (the small model, loaded a second
time) each have a KV cache of their own. Every step runs the three one after the other and takes the most likely token
of the combined logits; a batch is padded on the left and runs until its longest answer is done. Each row has an adapter
and a strength of its own; peft mixes adapters in a batch only where there is more than one.
Source: Liu et al. 2024, "Tuning Language Models by Proxy", arXiv:2401.08565.

Runs in a process of its own, `python -m tests.bench.proxy_published LARGE SMALL DTYPE DEVICE WEIGHTS ADAPTER=FOLDER…`:
it speaks as `tests.bench.peft_batches` does, with "ADAPTER~STRENGTH" for each request. WEIGHTS is "file", or "dummy"
for random ones of the models' shapes.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.errors import InvalidRun
from tests.bench.peft_batches import Batch, BatchTime, PeftProcess
from tests.bench.setup import Setup


@contextlib.contextmanager
def started(setup: Setup, small: Path, adapters: Mapping[str, Path]) -> Iterator[PeftProcess]:
    """Load the three models and the small one's adapters; ends the process at last."""
    command = [sys.executable, "-m", "tests.bench.proxy_published", str(setup.model), str(small)]
    command += [setup.dtype, setup.device, "dummy" if setup.dummy else "file"]
    command += [f"{name}={folder}" for name, folder in adapters.items()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise InvalidRun("the published way did not start; its own message is above")
            yield PeftProcess(process)
        finally:
            process.kill()


@dataclass(frozen=True)
class Selection:
    """What the rows of a batch ask for: the adapter and the strength of each."""

    adapters: tuple[str, ...]
    alphas: tuple[float, ...]


def selection(models: Sequence[str]) -> Selection:
    """From "ADAPTER~STRENGTH" of each row."""
    pairs = [model.split("~") for model in models]
    return Selection(tuple(name for name, _ in pairs), tuple(float(alpha) for _, alpha in pairs))


@dataclass(frozen=True)
class Three:
    """The models, as transformers and peft have them."""

    large: Any
    expert: Any
    antiexpert: Any

    def answers(self, batch: Batch, told: Callable[[], None]) -> list[list[int]]:
        """The greedy tokens of each row, `batch.tokens` of them; `told` is called at each."""
        import torch

        chosen = selection(batch.adapters)
        alphas = torch.tensor(chosen.alphas, device=self.large.device).unsqueeze(1)
        mixed = self._select(chosen.adapters)
        models: list[tuple[Any, dict[str, Any]]] = [(self.large, {}), (self.expert, mixed), (self.antiexpert, {})]
        ids, mask = _padded(batch.prompts, self.large.device)
        caches: list[Any] = [None, None, None]
        tokens = []
        with torch.inference_mode():
            for _ in range(batch.tokens):
                places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
                about = {"input_ids": ids, "attention_mask": mask, "position_ids": places, "logits_to_keep": 1}
                outputs = [
                    model(**about, **more, past_key_values=cache, use_cache=True)
                    for (model, more), cache in zip(models, caches, strict=True)
                ]
                caches = [output.past_key_values for output in outputs]
                ids = _best([output.logits[:, -1] for output in outputs], alphas)
                mask = torch.cat((mask, torch.ones_like(ids)), 1)
                tokens.append(ids)
                told()
        return [[int(token) for token in row] for row in torch.cat(tokens, 1)]

    def _select(self, adapters: Sequence[str]) -> dict[str, list[str]]:
        """Choose the expert's adapters; returns what its calls need besides, where they are mixed."""
        if len(set(adapters)) > 1:
            return {"adapter_names": list(adapters)}
        self.expert.set_adapter(adapters[0])
        return {}


def _padded(prompts: Sequence[Sequence[int]], device: Any) -> tuple[Any, Any]:
    """Token ids with zeros on the left, and the mask of what is real; (rows, the longest prompt) each."""
    import torch

    longest = max(map(len, prompts))
    ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _best(logits: Sequence[Any], alphas: Any) -> Any:
    """The most likely tokens, (rows, 1), of the three models' logits; columns of one vocabulary alone are padding."""
    large, expert, antiexpert = (each.float() for each in logits)
    shared = min(large.shape[1], expert.shape[1])
    large = large.clone()
    large[:, :shared] += alphas * (expert - antiexpert)[:, :shared]
    return large.argmax(-1, keepdim=True)


def loaded(large: str, small: str, dtype: str, device: str, weights: str, named: Sequence[str]) -> Three:
    """The three models; see the module for the arguments."""
    import torch
    from peft import PeftModel

    kind = getattr(torch, dtype)
    make = {"file": _read, "dummy": _made}[weights]
    (name, folder), *others = [each.split("=", 1) for each in named]
    expert = PeftModel.from_pretrained(make(small, kind, device), folder, adapter_name=name)
    for name, folder in others:
        expert.load_adapter(folder, adapter_name=name)
    return Three(make(large, kind, device).eval(), expert.to(dtype=kind).eval(), make(small, kind, device).eval())


def _read(model: str, dtype: Any, device: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(device)


def _made(model: str, dtype: Any, device: str) -> Any:
    """The model with whatever weights transformers begins with, made where they are needed."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device(device):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model), dtype=dtype)


def generated(three: Three, batch: Batch) -> BatchTime:
    """Generate, and look at the clock at every token."""
    import torch

    times = [time.perf_counter()]

    def told() -> None:
        if three.large.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())

    three.answers(batch, told)
    steps = sorted(after - before for before, after in zip(times[1:], times[2:], strict=False))
    return BatchTime(times[1] - times[0], steps[len(steps) // 2] if steps else 0.0, times[-1] - times[0])


def main(large: str, small: str, dtype: str, device: str, weights: str, *named: str) -> None:
    """Load, say so, and generate batch after batch."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    three = loaded(large, small, dtype, device, weights, named)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(generated(three, Batch(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
