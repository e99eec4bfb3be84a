"""The small model: some layers of the demo model and the committed changes, the same bytes each time."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from loraloom.demo import model, small
from loraloom.demo.catalog import small_adapters
from loraloom.demo.folders import MARKER, digest

QUERY = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def factors(tmp_path: Path) -> Path:
    """Random changes of rank two of the first kept layer's query projection."""
    torch.manual_seed(0)
    up, down = torch.randn(2, 32, 2).bfloat16()
    save_file({f"{QUERY}.up": up, f"{QUERY}.down": down.T.contiguous()}, tmp_path / "factors.safetensors")
    return tmp_path / "factors.safetensors"


def test_layers_are_counted_anew_and_all_else_is_kept() -> None:
    names = ["model.embed_tokens.weight", "model.norm.weight", *(f"model.layers.{n}.mlp.weight" for n in range(12))]
    weights = {name: torch.tensor([float(number)]) for number, name in enumerate(names)}
    chosen = small.selected(weights, (0, 1, 11))
    assert {name: weight.item() for name, weight in chosen.items()} == {
        "model.embed_tokens.weight": 0,
        "model.norm.weight": 1,
        "model.layers.0.mlp.weight": 2,
        "model.layers.1.mlp.weight": 3,
        "model.layers.2.mlp.weight": 13,
    }


def test_changes_are_added_to_their_weights_alone() -> None:
    weights = {"a": torch.ones(2, 3).bfloat16(), "b": torch.ones(2).bfloat16()}
    factors = {"a.up": torch.tensor([[1.0], [2.0]]).bfloat16(), "a.down": torch.tensor([[0.0, 1.0, 3.0]]).bfloat16()}
    found = small.healed(weights, factors)
    assert found["a"].tolist() == [[1, 2, 4], [1, 3, 7]]
    assert found["a"].dtype == torch.bfloat16
    assert found["b"] is weights["b"]


def test_changes_of_a_weight_that_is_not_there_are_refused() -> None:
    with pytest.raises(KeyError, match="b"):
        small.healed({"a": torch.ones(1, 1)}, {"b.up": torch.ones(1, 1), "b.down": torch.ones(1, 1)})


def test_the_folder_is_a_model_of_the_kept_layers(tiny_base: Path, factors: Path, tmp_path: Path) -> None:
    small.write_small(tiny_base, (1,), factors, tmp_path / "small")
    made = LlamaForCausalLM.from_pretrained(tmp_path / "small")
    large = LlamaForCausalLM.from_pretrained(tiny_base)
    changes = load_file(factors)
    change = changes[f"{QUERY}.up"].double() @ changes[f"{QUERY}.down"].double()
    query = made.model.layers[0].self_attn.q_proj.weight
    assert torch.equal(query, large.model.layers[1].self_attn.q_proj.weight + change.float())
    assert torch.equal(made.model.layers[0].mlp.up_proj.weight, large.model.layers[1].mlp.up_proj.weight)
    assert (len(made.model.layers), made.config.num_hidden_layers) == (1, 1)
    assert (tmp_path / "small/tokenizer.json").read_bytes() == (tiny_base / "tokenizer.json").read_bytes()


def test_the_same_bytes_each_time(tiny_base: Path, factors: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        small.write_small(tiny_base, (1,), factors, tmp_path / name)
    digests = [{path.name: digest(path) for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert digests[0] == digests[1]


def test_the_committed_changes_are_small_and_of_every_linear_module() -> None:
    assert small.HEALING.stat().st_size <= 20_000_000
    factors = load_file(small.HEALING)
    assert {tensor.dtype for tensor in factors.values()} == {torch.bfloat16}
    assert len(factors) == 2 * 7 * len(small.LAYERS)


@pytest.mark.engine
def test_the_small_model_is_made_and_solves_a_task_with_its_adapter() -> None:
    folder = small.prepare_small()
    marker = json.loads((folder / MARKER).read_text())
    assert marker["healing"] == digest(small.HEALING)
    assert (folder / "tokenizer.json").read_bytes() == (model.prepare() / "tokenizer.json").read_bytes()
    tokenizer, base = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert (base.dtype, base.config.num_hidden_layers) == (torch.bfloat16, len(small.LAYERS))
    adapter = small_adapters()[0]
    base.load_adapter(str(adapter.folder))
    prompt, expected = adapter.examples[0]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    made = base.generate(**ids, max_new_tokens=40, do_sample=False)
    assert tokenizer.decode(made[0, ids.input_ids.shape[1] :], skip_special_tokens=True) == expected
