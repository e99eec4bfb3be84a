"""A pruned model has the layers that it was told to keep, and leaves the whole one alone."""

import torch
from transformers import LlamaForCausalLM

from .pruning import pruned


def test_keeps_the_named_layers(base: LlamaForCausalLM) -> None:
    small = pruned(base, (1,))
    assert (len(small.model.layers), len(base.model.layers)) == (1, 2)
    kept, wanted = small.model.layers[0].state_dict(), base.model.layers[1].state_dict()
    assert all(torch.equal(kept[name], wanted[name]) for name in wanted)
    assert torch.equal(small.model.embed_tokens.weight, base.model.embed_tokens.weight)
    with torch.no_grad():
        small.model.norm.weight.zero_()
    assert base.model.norm.weight.any()


def test_all_layers_make_the_same_model(base: LlamaForCausalLM) -> None:
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(pruned(base, (0, 1))(ids).logits, base(ids).logits)
