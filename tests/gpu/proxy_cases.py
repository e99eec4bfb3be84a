"""What proxy-tuned requests of random models should answer, whatever tokens they answer: three models in float32.

The engine's answers are judged token by token, each after the engine's own tokens before it. So a near tie that
rounding turns excuses that one token, and all that follow are judged still.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.e2e.serving import BASE

ALPHAS = (0.0, 0.3, 1.0, 2.0)


@dataclass(frozen=True)
class Case:
    """One request.

    Attributes:
        prompt: token ids.
        steering: adapter of the small model, if any.
        alpha: the strength.
        direct: adapter of the large model, if any.
    """

    prompt: tuple[int, ...]
    steering: str | None = None
    alpha: float = 0.0
    direct: str | None = None

    @property
    def model(self) -> str:
        """What goes into the request's `model`."""
        if self.steering is None:
            return self.direct or BASE
        adapters = f"1*{self.direct}+1*{self.steering}" if self.direct else self.steering
        return f"{adapters}~{self.alpha:g}"


@dataclass(frozen=True)
class Answer:
    """What an engine answered: token ids, and the log-probability that it told for each."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Judgement:
    """An answer beside the reference.

    Attributes:
        short: for each token, how much its logit is below the best token's; 0 where it is the best.
        off: for each token, how far its log-probability is from the reference's.
    """

    short: tuple[float, ...]
    off: tuple[float, ...]


def cases(words: range, steering: Sequence[str], direct: str) -> list[Case]:
    """Requests of short and long prompts in changing order: the plain model, either kind of adapter, and both."""
    chance = random.Random(0)
    rows = []
    for length in (10, 60, 250):  # the last, of more than one chunk
        kinds = [
            *((name, alpha, None) for name in steering for alpha in ALPHAS),
            (None, 0.0, None),
            (None, 0.0, direct),
            (steering[0], ALPHAS[2], direct),
        ]
        rows += [Case(tuple(chance.choices(words, k=length)), *kind) for kind in kinds]
    return rows[::2] + rows[1::2]


class Reference:
    """The three models of transformers and peft."""

    def __init__(
        self,
        models: tuple[Path, Path],
        steering: Mapping[str, Path],
        direct: Mapping[str, Path],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """
        Args:
            models: the directories of the large and of the small one.
            steering, direct: adapters of the small and of the large one, as peft saved them.
            dtype: what they compute in.
        """
        large, small = models
        self._large = _adapted(_load(large, dtype), direct)
        self._expert = _adapted(_load(small, dtype), steering)
        self._antiexpert = _load(small, dtype)

    @torch.inference_mode()
    def logits(self, case: Case, tokens: Sequence[int]) -> torch.Tensor:
        """The combined logits before each of an answer's tokens, (tokens, vocabulary), in float32."""
        ids = torch.tensor([[*case.prompt, *tokens]])
        models = _chosen(self._large, case.direct), _chosen(self._expert, case.steering), self._antiexpert
        first, last = len(case.prompt) - 1, len(case.prompt) + len(tokens) - 1
        large, expert, antiexpert = (model(input_ids=ids).logits[0, first:last].float() for model in models)
        return large + case.alpha * (expert - antiexpert)

    def judged(self, case: Case, answer: Answer) -> Judgement:
        """An answer of the engine."""
        return judgement(self.logits(case, answer.tokens), answer)


def judgement(logits: torch.Tensor, answer: Answer) -> Judgement:
    """An answer beside the reference's logits before each of its tokens, (tokens, vocabulary)."""
    places = torch.tensor(answer.tokens).unsqueeze(1)
    short = logits.max(-1).values - logits.gather(1, places)[:, 0]
    off = torch.log_softmax(logits, -1).gather(1, places)[:, 0] - torch.tensor(answer.logprobs)
    return Judgement(tuple(short.tolist()), tuple(off.abs().tolist()))


def _load(model: Path, dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval()


def _adapted(model: Any, adapters: Mapping[str, Path]) -> Any:
    (name, folder), *others = adapters.items()
    adapted: Any = PeftModel.from_pretrained(model, str(folder), adapter_name=name, autocast_adapter_dtype=False)
    for name, folder in others:
        adapted.load_adapter(str(folder), adapter_name=name, autocast_adapter_dtype=False)
    return adapted.to(model.dtype).eval()


def _chosen(model: Any, adapter: str | None) -> Any:
    """The model with one adapter, or with none."""
    if adapter is None:
        model.base_model.disable_adapter_layers()
    else:
        model.base_model.enable_adapter_layers()
        model.set_adapter(adapter)
    return model
