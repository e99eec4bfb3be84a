"""How alike examples are to what each adapter answers to."""

from pathlib import Path

import pytest
import torch

from loraloom.adapters.arithmetic.factors import Factors
from loraloom.adapters.weights import write_factors
from loraloom.compose.errors import InvalidPool
from loraloom.compose.scorers.similarity import unlikeness
from loraloom.compose.scorers.torch_scorer import load_model
from loraloom.compose.scoring import Row

MODULE = "model.layers.0.self_attn.q_proj"
ROWS = [Row((5, 6, 7), (8,)), Row((40, 41), (42, 43))]


def adapter(folder: Path, direction: torch.Tensor, module: str = MODULE) -> Path:
    """An adapter that amplifies one input direction, and another one, orthogonal to it, ten times less."""
    folder.mkdir()
    other = torch.randn(len(direction), generator=torch.Generator().manual_seed(0))
    other -= direction * (other @ direction) / (direction @ direction)
    a = torch.stack([direction / direction.norm(), other / other.norm()])
    b = torch.zeros(32, 2)
    b[3, 0], b[4, 1] = 1.0, 0.1
    write_factors(folder, {module: Factors(a, b)}, None)
    return folder


def inputs(base: Path, row: Row) -> torch.Tensor:
    """What the module gets, [tokens, in]."""
    model, seen = load_model(base, "cpu"), []
    model.get_submodule(MODULE).register_forward_pre_hook(lambda _, given: seen.append(given[0][0]))
    with torch.inference_mode():
        model(torch.tensor([[*row.prompt, *row.answer]]))
    return seen[0]


def test_an_adapter_is_alike_to_the_inputs_along_its_direction(tiny_base: Path, tmp_path: Path) -> None:
    folders = [adapter(tmp_path / str(number), inputs(tiny_base, row).mean(0)) for number, row in enumerate(ROWS)]
    found = unlikeness(load_model(tiny_base, "cpu"), folders, ROWS)
    assert found[0][0] < found[1][0]
    assert found[1][1] < found[0][1]
    for number, row in enumerate(ROWS):
        given = inputs(tiny_base, row)
        direction = given.mean(0) / given.mean(0).norm()
        expected = (given @ direction / given.norm(dim=1)).abs().mean()
        assert found[number][number] == pytest.approx(-expected.item(), abs=1e-5)


def test_it_lies_between_minus_one_and_zero_and_forgets_the_scale(tiny_base: Path, tmp_path: Path) -> None:
    direction = torch.randn(32, generator=torch.Generator().manual_seed(1))
    folders = [adapter(tmp_path / "one", direction), adapter(tmp_path / "same", 7 * direction)]
    found = unlikeness(load_model(tiny_base, "cpu"), folders, ROWS)
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert all(-1 <= value <= 0 for values in found for value in values)


def test_a_module_of_another_base_is_told(tiny_base: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "other", torch.ones(32), "model.layers.9.self_attn.q_proj")
    with pytest.raises(InvalidPool, match=r"no module model\.layers\.9"):
        unlikeness(load_model(tiny_base, "cpu"), [folder], ROWS)
