"""What a fully fine-tuned model changed of its base."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from loraloom.adapters.convert.models import linear_layers, weight
from loraloom.adapters.errors import BaseMismatch, UnsupportedAdapter

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

OTHER_CHANGE = 0.01
"""The largest change of a norm, bias or embedding that is left out, as a share of its Frobenius norm. What leaving it
out does to the predictions is in the KL divergence."""
_SHOWN = 3


def updates_between(tuned: "PreTrainedModel", base: "PreTrainedModel") -> "Iterator[tuple[str, Tensor]]":
    """Path and update of each linear layer that differs, float64 [out_features, in_features].

    Raises:
        BaseMismatch: the models do not have the same tensors.
        UnsupportedAdapter: a tensor that is not a linear layer's weight differs by more than `OTHER_CHANGE`.
    """
    _check_shapes(tuned, base)
    layers = dict(linear_layers(base))
    _check_others(tuned, base)
    for path, layer in linear_layers(tuned):
        yield path, weight(layer) - weight(layers[path])


def _check_shapes(tuned: "PreTrainedModel", base: "PreTrainedModel") -> None:
    ours, theirs = (dict(model.named_parameters()) for model in (tuned, base))
    differing = sorted(ours.keys() ^ theirs.keys())
    differing += [name for name in ours.keys() & theirs.keys() if ours[name].shape != theirs[name].shape]
    if differing:
        raise BaseMismatch(
            f"{len(differing)} tensors of the fine-tuned model and its base do not correspond, such as {differing[0]}. "
            "Name the base that it was trained from, and train without new tokens (resized embeddings)"
        )


def _check_others(tuned: "PreTrainedModel", base: "PreTrainedModel") -> None:
    """Refuse changes that LoRA cannot hold, unless they are small."""
    linear = {f"{path}.weight" for path, _ in linear_layers(base)}
    before = dict(base.named_parameters())
    changed = {name: _change(after, before[name]) for name, after in tuned.named_parameters() if name not in linear}
    large = [name for name in sorted(changed, key=changed.__getitem__, reverse=True) if changed[name] > OTHER_CHANGE]
    if large:
        named = ", ".join(f"{name} by {changed[name]:.2%}" for name in large[:_SHOWN])
        raise UnsupportedAdapter(
            f"{len(large)} tensors that are not linear layers' weights changed by more than {OTHER_CHANGE:.0%}, which "
            f"LoRA cannot hold: {named}. Serve the model itself, or train with these frozen"
        )


def _change(after: "Tensor", before: "Tensor") -> float:
    """The size of a change as a share of what was there; infinite for a change from nothing."""
    change, size = float((after.double() - before.double()).norm()), float(before.double().norm())
    if change == 0:
        return 0.0
    return change / size if size else float("inf")
