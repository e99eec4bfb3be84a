"""What the answers should be: transformers and peft, in float32, one request at a time."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass(frozen=True)
class Reference:
    """A greedy continuation.

    Attributes:
        tokens: the generated token ids, the end of the turn included.
        margins: for each of them, the logit of the best token minus that of the second best.
        logprobs: for each of them, its log-probability.
    """

    tokens: tuple[int, ...]
    margins: tuple[float, ...]
    logprobs: tuple[float, ...] = ()


class Transformers:
    """The base model with every adapter attached, as peft loads them."""

    def __init__(self, model: Path, adapters: Mapping[str, Path]) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        first, *others = adapters.items()
        self._model: Any = PeftModel.from_pretrained(base, str(first[1]), adapter_name=first[0])
        for name, folder in others:
            self._model.load_adapter(str(folder), adapter_name=name)
        self._model.eval()

    def greedy(self, prompt: str, adapter: str | None, length: int) -> Reference:
        """Continue a user's message.

        Args:
            prompt: the message.
            adapter: which adapter; None is the plain base.
            length: at most this many tokens.
        """
        if adapter is None:
            with self._model.disable_adapter():
                return self._continue(prompt, length)
        self._model.set_adapter(adapter)
        return self._continue(prompt, length)

    @torch.inference_mode()
    def _continue(self, prompt: str, length: int) -> Reference:
        ids = self.prompt_ids(prompt)
        inputs, cache = torch.tensor([ids]), None
        tokens: list[int] = []
        margins: list[float] = []
        logprobs: list[float] = []
        while len(tokens) < length and (not tokens or tokens[-1] != self.tokenizer.eos_token_id):
            out = self._model(input_ids=inputs, past_key_values=cache, use_cache=True)
            logits = out.logits[0, -1].float()
            best = torch.topk(logits, 2)
            tokens.append(int(best.indices[0]))
            logprobs.append(float(torch.log_softmax(logits, -1)[tokens[-1]]))
            margins.append(float(best.values[0] - best.values[1]))
            inputs, cache = torch.tensor([tokens[-1:]]), out.past_key_values
        return Reference(tuple(tokens), tuple(margins), tuple(logprobs))

    def prompt_ids(self, prompt: str) -> list[int]:
        """The token ids of a user's message in the chat template, ready for the answer."""
        return chat_ids(self.tokenizer, prompt)


def chat_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The token ids of a user's message in the chat template, ready for the answer."""
    turns = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


Updates = dict[str, torch.Tensor]
"""What is added to weights of the base, by the names of their modules."""


class Merged(Transformers):
    """The base model alone, to whose weights updates are added as they are asked for."""

    def __init__(self, model: Path, adapters: Mapping[str, Path]) -> None:
        super().__init__(model, adapters)
        layers = {
            name.removeprefix("base_model.model."): layer
            for name, layer in self._model.named_modules()
            if hasattr(layer, "get_delta_weight")
        }
        self._factors = {
            adapter: {path: _factors(layer, adapter) for path, layer in layers.items() if adapter in layer.lora_A}
            for adapter in adapters
        }
        self._model = self._model.unload()

    def weighted_sum(self, weights: Mapping[str, float]) -> Updates:
        """The sum of the adapters' updates, in float64."""
        total: Updates = {}
        for adapter, weight in weights.items():
            for path, (a, b, scaling) in self._factors[adapter].items():
                total[path] = total.get(path, torch.zeros(1, dtype=torch.float64)) + weight * scaling * (b @ a)
        return total

    def composed(self, weights: Mapping[str, float]) -> Updates:
        """LoRAHub's composition of adapters with equal ranks, scalings and modules: the sums of the factors."""
        composed = {}
        for path, (_, _, scaling) in self._factors[next(iter(weights))].items():
            terms = [(weight, *self._factors[adapter][path]) for adapter, weight in weights.items()]
            assert {of_term for *_, of_term in terms} == {scaling}
            sums = (sum(term[0] * term[which] for term in terms) for which in (2, 1))
            b, a = sums
            composed[path] = scaling * (torch.as_tensor(b) @ torch.as_tensor(a))
        return composed

    def greedy_with(self, prompt: str, updates: Updates, length: int) -> Reference:
        """Continue a user's message with the base's weights plus `updates`."""
        with self._updated(updates):
            return self._continue(prompt, length)

    @contextlib.contextmanager
    def _updated(self, updates: Updates) -> Iterator[None]:
        weights = {path: self._model.get_submodule(path).weight for path in updates}
        before = {path: weight.detach().clone() for path, weight in weights.items()}
        try:
            for path, weight in weights.items():
                weight.data = (before[path].double() + updates[path]).float()
            yield
        finally:
            for path, weight in weights.items():
                weight.data = before[path]


def truncated(updates: Updates, rank: int) -> Updates:
    """The best approximation of each update by a matrix of this rank: its projection on its main directions."""
    cut = {}
    for path, update in updates.items():
        tall = update.shape[0] > update.shape[1]
        wide = update.T if tall else update
        _, directions = torch.linalg.eigh(wide @ wide.T)
        main = directions[:, -rank:]
        projected = main @ (main.T @ wide)
        cut[path] = projected.T if tall else projected
    return cut


def _factors(layer: Any, adapter: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A, B and the scaling of a layer, as peft loaded them."""
    a, b = (factor[adapter].weight.detach().double() for factor in (layer.lora_A, layer.lora_B))
    return a, b, layer.scaling[adapter]


def agrees(tokens: tuple[int, ...], reference: Reference, tolerance: float = 2e-3) -> bool:
    """Whether tokens equal the reference's, up to the first place where its own best two are nearly tied."""
    for ours, theirs, margin in zip(tokens, reference.tokens, reference.margins, strict=False):
        if ours != theirs:
            return margin <= tolerance
    return len(tokens) == len(reference.tokens)
