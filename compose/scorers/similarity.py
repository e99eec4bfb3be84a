"""How alike examples are to what each adapter answers to, from one pass of the base model.

An adapter's update of a module answers most to the input direction that it amplifies most, its first right singular
vector. Where the module's inputs lie along that direction, the adapter has something to say. This is the measure of
Arrow routing (Ostapenko et al. 2024, "Towards Modular LLMs by Building and Reusing a Library of LoRAs",
https://arxiv.org/abs/2405.11157), here averaged over modules and tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from loraloom.adapters.arithmetic.factors import Factors
from loraloom.adapters.weights import read_factors
from loraloom.compose.errors import InvalidPool
from loraloom.compose.scoring import Row


def unlikeness(model: PreTrainedModel, folders: Sequence[Path], rows: Sequence[Row]) -> list[list[float]]:
    """Minus the similarity of each adapter to each row.

    Args:
        model: the base model.
        folders: adapters in normal form.
        rows: examples, their answers included.

    Returns:
        [adapters, rows], each from -1, where every input lies along the adapter's directions, to 0.

    Raises:
        InvalidPool: a module of an adapter is not the model's.
    """
    directions = [_directions(folder) for folder in folders]
    paths = sorted({path for each in directions for path in each})
    return [list(each) for each in zip(*(_row(model, directions, paths, row) for row in rows), strict=True)]


def _directions(folder: Path) -> Mapping[str, Tensor]:
    """The first right singular vector, [in], of each module's update."""
    factors, _ = read_factors(folder)
    return {path: _first_right(each) for path, each in factors.items()}


def _first_right(factors: Factors) -> Tensor:
    q, r = torch.linalg.qr(factors.a.float().T)
    _, _, right = torch.linalg.svd(factors.b.float() @ r.T, full_matrices=False)
    first: Tensor = q @ right[0]
    return first


@torch.inference_mode()
def _row(
    model: PreTrainedModel, directions: Sequence[Mapping[str, Tensor]], paths: Sequence[str], row: Row
) -> list[float]:
    """Minus the similarity of each adapter to one row."""
    totals = torch.zeros(len(directions), dtype=torch.float64)
    with ExitStack() as hooks:
        for path in paths:
            known = [number for number, each in enumerate(directions) if path in each]
            stacked = torch.stack([directions[number][path] for number in known]).to(model.device)
            look = _looking(stacked, known, totals)
            hooks.callback(_module(model, path).register_forward_pre_hook(look).remove)
        model(torch.tensor([[*row.prompt, *row.answer]], device=model.device), use_cache=False, logits_to_keep=1)
    modules = torch.tensor([max(len(each), 1) for each in directions])
    return [-value for value in (totals / modules).tolist()]


def _looking(stacked: Tensor, known: Sequence[int], totals: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook that adds up |cos| between a module's inputs and the adapters' directions, [known, in]."""

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        along = nn.functional.normalize(inputs[0][0].float(), dim=-1) @ stacked.T
        totals[list(known)] += along.abs().mean(0).double().cpu()

    return look


def _module(model: PreTrainedModel, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise InvalidPool(f"the base model has no module {path}: the adapters are of another base") from None
