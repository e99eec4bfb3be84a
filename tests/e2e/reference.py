"""What the answers should be: transformers and peft, in float32, one request at a time."""

from collections.abc import Mapping
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
    """

    tokens: tuple[int, ...]
    margins: tuple[float, ...]


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
        while len(tokens) < length and (not tokens or tokens[-1] != self.tokenizer.eos_token_id):
            out = self._model(input_ids=inputs, past_key_values=cache, use_cache=True)
            best = torch.topk(out.logits[0, -1].float(), 2)
            tokens.append(int(best.indices[0]))
            margins.append(float(best.values[0] - best.values[1]))
            inputs, cache = torch.tensor([tokens[-1:]]), out.past_key_values
        return Reference(tuple(tokens), tuple(margins))

    def prompt_ids(self, prompt: str) -> list[int]:
        """The token ids of a user's message in the chat template, ready for the answer."""
        turns = [{"role": "user", "content": prompt}]
        text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def agrees(tokens: tuple[int, ...], reference: Reference, tolerance: float = 2e-3) -> bool:
    """Whether tokens equal the reference's, up to the first place where its own best two are nearly tied."""
    for ours, theirs, margin in zip(tokens, reference.tokens, reference.margins, strict=False):
        if ours != theirs:
            return margin <= tolerance
    return len(tokens) == len(reference.tokens)
