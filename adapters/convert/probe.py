"""How differently two models predict: the next-token distributions at every position of a text."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom.adapters.convert.probe_text import PROBE_TEXT
from loraloom.adapters.errors import InvalidAdapter

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

MAX_TOKENS = 1024
"""How much of a text is read: the predictions of both models for all of it are in memory at once."""

BUILT_IN = "built-in"
_WINDOW = 256
_ROWS = 64


@dataclass(frozen=True)
class Probe:
    """A text as token ids.

    Attributes:
        name: "built-in", or the SHA-256 of the user's text.
        windows: parts that are predicted by themselves.
    """

    name: str
    windows: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """The number of distributions that are compared."""
        return sum(map(len, self.windows))


@dataclass(frozen=True)
class Divergence:
    """What differs between an original's predictions and another model's.

    Attributes:
        kl: mean KL(original || other) in nats.
        top1: the share of positions at which both find the same token most likely.
    """

    kl: float
    top1: float


def read_probe(file: Path | None, tokenizer: "PreTrainedTokenizerBase") -> Probe:
    """The probe text, or the first `MAX_TOKENS` tokens of the user's own.

    Raises:
        InvalidAdapter: the file cannot be read, or is empty.
    """
    try:
        text = PROBE_TEXT if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidAdapter(f"the probe text {file} cannot be read: {error}") from error
    ids = tokenizer(text, verbose=False).input_ids[:MAX_TOKENS]
    if not ids:
        raise InvalidAdapter(f"the probe text {file} is empty: give some text of the kind that the adapter is for")
    windows = tuple(tuple(ids[start : start + _WINDOW]) for start in range(0, len(ids), _WINDOW))
    return Probe(BUILT_IN if file is None else hashlib.sha256(text.encode()).hexdigest(), windows)


def predictions(model: "nn.Module", probe: Probe) -> "Tensor":
    """The model's logits at every position, float32 [tokens, vocabulary], computed in float32."""
    import torch

    with torch.inference_mode(False), torch.no_grad(), _in_float32(model):
        return torch.cat([model(input_ids=torch.tensor([window])).logits[0].float() for window in probe.windows])


def compare(original: "Tensor", other: "Tensor") -> Divergence:
    """How far the `other` logits are from the `original` ones, both [tokens, vocabulary]."""
    import torch

    total = 0.0
    for wanted, found in zip(torch.split(original, _ROWS), torch.split(other, _ROWS), strict=True):
        p, q = wanted.double().log_softmax(-1), found.double().log_softmax(-1)
        total += float(torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True))
    alike = (original.argmax(-1) == other.argmax(-1)).double().mean()
    return Divergence(max(total, 0.0) / len(original), float(alike))


@contextmanager
def _in_float32(model: "nn.Module") -> Iterator[None]:
    """Let each module compute with float32 copies of its own weights, made for the time that it runs.

    bfloat16 products would differ between two equal models by more than a conversion may lose, and a float32 copy of
    the whole model is twice its size.
    """
    kept: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def widen(module: "nn.Module", _: Any) -> None:
        kept[module] = [(tensor, tensor.data) for tensor in _owned(module) if _is_narrow(tensor)]
        for tensor, narrow in kept[module]:
            tensor.data = narrow.float()

    def restore(module: "nn.Module", *_: Any) -> None:
        for tensor, narrow in kept.pop(module):
            tensor.data = narrow

    handles = []
    for module in model.modules():
        if any(map(_is_narrow, _owned(module))):
            handles += [module.register_forward_pre_hook(widen), module.register_forward_hook(restore)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _owned(module: "nn.Module") -> "Iterator[Tensor]":
    """What the module computes with: its own tensors; those of an adapted layer as a whole, which peft reaches into."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    whole = isinstance(module, BaseTunerLayer)
    yield from module.parameters(recurse=whole)
    yield from module.buffers(recurse=whole)


def _is_narrow(tensor: "Tensor") -> bool:
    return tensor.is_floating_point() and tensor.itemsize < 4
