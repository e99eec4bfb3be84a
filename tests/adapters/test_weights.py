"""Reading and writing the weights of normal forms."""

import json
from pathlib import Path

import pytest
import torch

from loraloom.adapters.arithmetic.factors import Factors
from loraloom.adapters.errors import InvalidAdapter
from loraloom.adapters.normal import FILES, normalise
from loraloom.adapters.weights import read_factors, write_factors
from tests.tiny_models import MakeAdapter


def normal_form(make_adapter: MakeAdapter, folder: Path, **fields: object) -> Path:
    folder.mkdir()
    normalise(make_adapter(**fields), folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_writing_what_was_read_gives_the_same_bytes(make_adapter: MakeAdapter, tmp_path: Path, dtype: str) -> None:
    given = normal_form(make_adapter, tmp_path / "given", dtype=dtype, rank_pattern={"v_proj": 2})
    factors, task_type = read_factors(given)
    assert task_type == "CAUSAL_LM"
    assert {each.rank for each in factors.values()} == {2, 4}
    again = tmp_path / "again"
    again.mkdir()
    write_factors(again, factors, task_type)
    for name in FILES:
        assert (again / name).read_bytes() == (given / name).read_bytes()


def test_what_normalise_reads_of_it_is_what_was_written(tmp_path: Path) -> None:
    """Types may differ between A and B, and ranks between modules."""
    torch.manual_seed(0)
    written = {
        "model.layers.1.self_attn.q_proj": Factors(torch.randn(3, 8), torch.randn(6, 3).bfloat16()),
        "model.layers.0.mlp.down_proj": Factors(torch.randn(1, 5).half(), torch.randn(7, 2)[:, ::2]),
        "model.layers.0.mlp.up_proj": Factors(torch.randn(5, 1).T, torch.randn(1, 7).T),
    }
    folder, again = tmp_path / "one", tmp_path / "two"
    folder.mkdir()
    again.mkdir()
    write_factors(folder, written, None)
    normalise(folder, again)
    read, _ = read_factors(again)
    assert set(read) == set(written)
    for path, factors in written.items():
        assert torch.equal(read[path].a, factors.a)
        assert torch.equal(read[path].b, factors.b)
        assert read[path].b.dtype == factors.b.dtype


def test_an_adapter_that_is_no_normal_form(make_adapter: MakeAdapter) -> None:
    with pytest.raises(InvalidAdapter, match="not in normal form"):
        read_factors(make_adapter(lora_alpha=16))


def test_a_damaged_one(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    folder = normal_form(make_adapter, tmp_path / "given")
    weights = folder / FILES[1]
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InvalidAdapter, match="truncated"):
        read_factors(folder)
    (folder / FILES[0]).write_text(json.dumps({}))
    with pytest.raises(InvalidAdapter):
        read_factors(folder)
