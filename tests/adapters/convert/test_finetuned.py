"""A fine-tuned model's changes are those of its linear layers, and others are refused by name."""

from pathlib import Path

import pytest
import torch

from loraloom.adapters.convert.finetuned import OTHER_CHANGE, updates_between
from loraloom.adapters.convert.models import load_model
from loraloom.adapters.errors import BaseMismatch, UnsupportedAdapter


def test_each_linear_layers_update_is_the_difference(biased_base: Path) -> None:
    tuned, base = load_model(biased_base), load_model(biased_base)
    with torch.no_grad():
        tuned.model.layers[1].mlp.up_proj.weight[3, 5] += 0.5
        tuned.lm_head.weight[7, 2] -= 0.25
    updates = dict(updates_between(tuned, base))
    assert len(updates) == 15
    changed = {path: update.nonzero().tolist() for path, update in updates.items() if update.any()}
    assert changed == {"model.layers.1.mlp.up_proj": [[3, 5]], "lm_head": [[7, 2]]}
    assert float(updates["lm_head"][7, 2]) == pytest.approx(-0.25)


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.norm.weight"])
def test_large_changes_of_other_tensors_are_refused(tiny_base: Path, name: str) -> None:
    tuned, base = load_model(tiny_base), load_model(tiny_base)
    tensor = tuned.get_parameter(name)
    with torch.no_grad():
        tensor.mul_(1 + OTHER_CHANGE / 2)
    assert len(list(updates_between(tuned, base))) == 14
    with torch.no_grad():
        tensor.mul_(1 + OTHER_CHANGE)
    with pytest.raises(UnsupportedAdapter, match=rf"1 tensors .* more than 1%.*{name} by 1\.5"):
        list(updates_between(tuned, base))


def test_a_bias_that_was_nothing_before_is_a_large_change(biased_base: Path) -> None:
    tuned, base = load_model(biased_base), load_model(biased_base)
    bias = "model.layers.0.self_attn.q_proj.bias"
    with torch.no_grad():
        base.get_parameter(bias).zero_()
        tuned.get_parameter(bias).zero_()[0] = 1e-6
    with pytest.raises(UnsupportedAdapter, match=f"{bias} by inf"):
        list(updates_between(tuned, base))


def test_models_that_do_not_correspond_are_refused(tiny_base: Path, biased_base: Path) -> None:
    with pytest.raises(BaseMismatch, match="do not correspond"):
        list(updates_between(load_model(tiny_base), load_model(biased_base)))
    resized = load_model(tiny_base)
    resized.resize_token_embeddings(100)
    with pytest.raises(BaseMismatch, match="new tokens"):
        list(updates_between(resized, load_model(tiny_base)))
