"""What proxy-tuned answers should be: three models of transformers and peft, in float32, one request at a time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.e2e.reference import Reference


class ThreeModels:
    """A large model, and a small one with and without adapters.

    The large one may have adapters of its own, which are applied to it directly.
    """

    def __init__(
        self,
        large: Path,
        small: Path,
        steering: Mapping[str, Path],
        direct: Mapping[str, Path],
        expert: Path | None = None,
    ) -> None:
        """
        Args:
            large, small: the models' directories.
            steering: adapters of the small model by their names, as peft saved them.
            direct: those of the large model.
            expert: a tuned small model's directory, where there is one.
        """
        self._large = _with_adapters(large, direct)
        self._expert = _with_adapters(expert or small, steering)
        self._antiexpert = _load(small)

    def greedy(
        self, prompt: list[int], length: int, steering: str | None, alphas: Sequence[float], direct: str | None = None
    ) -> list[Reference]:
        """Continue a prompt by so many tokens, also beyond the end of the turn.

        Args:
            prompt: token ids.
            length: how many tokens.
            steering: adapter of the expert; None is the plain small model.
            alphas: the strengths, each of which gets a continuation.
            direct: adapter of the large model.
        """
        large, expert = _selected(self._large, direct), _selected(self._expert, steering)
        return _continue((large, expert, self._antiexpert), torch.tensor(alphas).unsqueeze(1), prompt, length)

    @torch.inference_mode()
    def prompt_logprobs(self, prompt: list[int], steering: str, alpha: float) -> list[float]:
        """The log-probability of each token of a prompt after its first."""
        models = _selected(self._large, None), _selected(self._expert, steering), self._antiexpert
        large, expert, antiexpert = (model(input_ids=torch.tensor([prompt])).logits[0] for model in models)
        logprobs = torch.log_softmax(large + alpha * (expert - antiexpert), -1)
        return [float(row[token]) for row, token in zip(logprobs, prompt[1:], strict=False)]


@torch.inference_mode()
def _continue(models: tuple[Any, Any, Any], alphas: torch.Tensor, prompt: list[int], length: int) -> list[Reference]:
    """A row for each strength: with one prompt, and no row that ends, nothing is padded."""
    inputs = torch.tensor([prompt] * len(alphas))
    caches: list[Any] = [None, None, None]
    steps = []
    for _ in range(length):
        outputs = [
            model(input_ids=inputs, past_key_values=cache, use_cache=True)
            for model, cache in zip(models, caches, strict=True)
        ]
        caches = [output.past_key_values for output in outputs]
        large, expert, antiexpert = (output.logits[:, -1].float() for output in outputs)
        offset = torch.zeros_like(large)  # also in columns that only the large vocabulary has
        shared = min(large.shape[1], expert.shape[1])
        offset[:, :shared] = (expert - antiexpert)[:, :shared]
        logits = large + alphas * offset
        best = torch.topk(logits, 2)
        inputs = best.indices[:, :1]
        logprobs = torch.log_softmax(logits, -1).gather(1, inputs)
        steps.append(torch.cat((inputs, best.values[:, :1] - best.values[:, 1:], logprobs), 1))
    rows = torch.stack(steps).unbind(1)
    return [
        Reference(tuple(int(token) for token in row[:, 0]), *(tuple(row[:, column].tolist()) for column in (1, 2)))
        for row in rows
    ]


def _load(model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


def _with_adapters(model: Path, adapters: Mapping[str, Path]) -> Any:
    loaded = _load(model)
    for name, folder in adapters.items():
        if isinstance(loaded, PeftModel):
            loaded.load_adapter(str(folder), adapter_name=name)
        else:
            loaded = PeftModel.from_pretrained(loaded, str(folder), adapter_name=name)
    return loaded.eval()


def _selected(model: Any, adapter: str | None) -> Any:
    """The model with one adapter, or with none."""
    if not isinstance(model, PeftModel):
        return model
    if adapter is None:
        model.base_model.disable_adapter_layers()
    else:
        model.base_model.enable_adapter_layers()
        model.set_adapter(adapter)
    return model
