"""Whether a small model can steer a large one: every reason against it, and what is good to know."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loraloom.server.errors import ProxyMismatch
from loraloom.server.proxy.fitting.architecture import unsuited
from loraloom.server.proxy.fitting.checkpoint import Checkpoint, read_checkpoint
from loraloom.server.proxy.fitting.tokens import mismatch, special_differences

_SHOWN = 3


@dataclass(frozen=True)
class Fit:
    """What was found.

    Attributes:
        large: the model that is steered.
        small: the model that steers it, as antiexpert; with an adapter, as expert too.
        expert: a tuned copy of the small model that is the expert instead, or None.
        refusals: why they cannot be served together, each with the way out; empty when they can.
        notes: what does not keep them from being served.
    """

    large: Checkpoint
    small: Checkpoint
    expert: Checkpoint | None
    refusals: tuple[str, ...]
    notes: tuple[str, ...]

    def raise_if_refused(self) -> None:
        """Raise where the models do not fit.

        Raises:
            ProxyMismatch: with every reason.
        """
        if self.refusals:
            reasons = "; ".join(self.refusals)
            raise ProxyMismatch(f"{self.small.name} cannot steer {self.large.name}: {reasons}")


def check_fit(large: str | Path, small: str | Path, expert: str | Path | None = None) -> Fit:
    """Look at two models, and at a tuned copy of the small one, each a folder or an id of the Hugging Face Hub.

    Raises:
        InvalidBase: one of them is not within reach, or its files cannot be read.
    """
    models = read_checkpoint(large), read_checkpoint(small), None if expert is None else read_checkpoint(expert)
    # One model may have two parts to play, and is refused or noted once.
    refusals, notes = dict.fromkeys(_refusals(*models)), dict.fromkeys(_notes(*models))
    return Fit(*models, refusals=tuple(refusals), notes=tuple(notes))


def _refusals(large: Checkpoint, small: Checkpoint, expert: Checkpoint | None) -> Iterator[str]:
    for model in (large, small):
        yield from _unsuited(model)
    if reason := mismatch(large.tokens, small.tokens):
        yield reason
    else:
        yield from _beyond(large, small)
        yield from _beyond(small, small)
    yield from _quantized(small)
    if large.architecture.quantization == "bitsandbytes":
        yield f"{large.name} is quantized by bitsandbytes, whose loader reads one checkpoint: take another method's"
    yield from _remote(small)
    if small.architecture.experts and not any(unsuited(small.architecture)):
        yield f"{small.name} is a mixture of experts: take a dense small model (the large one may have experts)"
    if small.parameters > large.parameters:
        yield (
            f"{small.name} is larger than {large.name} ({billions(small.parameters)} and {billions(large.parameters)} "
            "parameters): name the large model first"
        )
    if expert is not None:
        yield from _expert(small, expert)


def _unsuited(model: Checkpoint) -> Iterator[str]:
    reasons = list(unsuited(model.architecture))
    for reason in reasons:
        yield f"{model.name} cannot be proxy-tuned: {reason}. Take a dense or mixture-of-experts decoder of text"
    sizes = model.architecture
    if not reasons and not all((sizes.layers, sizes.hidden, sizes.query_heads, sizes.vocab_size)):
        yield (
            f"{model.name} cannot be proxy-tuned: its config.json leaves out layers, width, heads or vocabulary. Give "
            "a model as transformers' save_pretrained writes it"
        )


def _beyond(model: Checkpoint, small: Checkpoint) -> Iterator[str]:
    """Real tokens without a row of their own; those of the two tokenizers are the same here."""
    if not small.tokens.ids:
        return
    token, number = max(small.tokens.ids.items(), key=lambda item: item[1])
    if number >= model.architecture.vocab_size > 0:
        yield (
            f"the token {token!r} has the id {number}, and {model.name} only {model.architecture.vocab_size} rows: "
            "resize its embeddings, or remove the tokens that were added to its tokenizer"
        )


def _quantized(model: Checkpoint) -> Iterator[str]:
    if method := model.architecture.quantization:
        yield f"{model.name} is quantized ({method}): take the same model unquantized (the large one may be quantized)"


def _remote(model: Checkpoint) -> Iterator[str]:
    if model.architecture.remote_code:
        yield (
            f"{model.name} needs code that comes with it (`auto_map` in its config.json), which is not run for a small "
            "model: take one of a kind that transformers has, or a copy that is written as such a kind, without "
            "`auto_map`"
        )


def _expert(small: Checkpoint, expert: Checkpoint) -> Iterator[str]:
    yield from _quantized(expert)
    yield from _remote(expert)
    if reason := mismatch(small.tokens, expert.tokens):
        yield f"the expert has another tokenizer than the small model: {reason}"
    names = sorted(name for name in small.shapes.keys() | expert.shapes.keys() if _differ(name, small, expert))
    if small.shapes and expert.shapes and names:
        shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        yield (
            f"{expert.name} and {small.name} differ in the names or shapes of their tensors ({len(names)}: {shown}): "
            "give the small model that the expert was tuned from"
        )
    elif _sizes(small) != _sizes(expert):
        yield f"{expert.name} has other sizes than {small.name}: give the small model that the expert was tuned from"


def _differ(name: str, small: Checkpoint, expert: Checkpoint) -> bool:
    # Some checkpoints store what is computed anyway, or the tied output layer a second time.
    if name.endswith(".inv_freq") or (
        name == "lm_head.weight" and small.architecture.tied and expert.architecture.tied
    ):
        return False
    return small.shapes.get(name) != expert.shapes.get(name)


def _sizes(model: Checkpoint) -> tuple[object, ...]:
    sizes = model.architecture
    heads = (sizes.query_heads, sizes.kv_heads, sizes.head_dim)
    return sizes.architectures, sizes.layers, sizes.hidden, heads, sizes.intermediate, sizes.vocab_size


def _notes(large: Checkpoint, small: Checkpoint, expert: Checkpoint | None) -> Iterator[str]:
    yield from _token_notes(large, small)
    yield from _context(large, small)
    for model in (large, small, expert):
        if model is not None and not model.shapes:
            yield f"{model.name} has no weights as safetensors here: its sizes are those of its config.json, in 16 bits"


def _token_notes(large: Checkpoint, small: Checkpoint) -> Iterator[str]:
    ours, theirs = large.architecture.vocab_size, small.architecture.vocab_size
    if ours != theirs:
        yield f"the vocabularies are padded to {ours} and {theirs} columns: padding of either is left as it is"
    if special := "; ".join(special_differences(large.tokens, small.tokens)):
        yield f"special tokens differ ({special}): those of the large model are used"
    if large.tokens.ids == small.tokens.ids and large.tokens.digest != small.tokens.digest:
        yield "the tokenizers have the same ids but other merges or scores: the large model's is used for both"
    if large.tokens.templates:
        yield (
            f"the large model has several chat templates ({', '.join(large.tokens.templates)}), none called default: "
            "chat needs one after `--`, as in `-- --chat-template FILE`"
        )
    elif large.tokens.chat_template is None:
        yield "the large model has no chat template: chat needs one after `--`, as in `-- --chat-template FILE`"
    elif large.tokens.chat_template != small.tokens.chat_template:
        yield "the chat templates differ: the large model's is used for both"


def _context(large: Checkpoint, small: Checkpoint) -> Iterator[str]:
    ours, theirs = large.architecture.max_position_embeddings, small.architecture.max_position_embeddings
    if 0 < theirs < ours:
        yield (
            f"the small model knows {theirs} positions, the large one {ours}: serve with `-- --max-model-len {theirs}` "
            "or less"
        )


def billions(parameters: int) -> str:
    """A number of parameters as people say it, such as "70.6 B" or "135 M"."""
    if parameters >= 999.5e6:
        return f"{parameters / 10**9:.3g} B"
    return f"{parameters / 10**6:.3g} M"
