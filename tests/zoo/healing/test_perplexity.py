"""Perplexity is the exponential of the mean loss over all texts' tokens."""

import math

import pytest
import torch
from transformers import LlamaForCausalLM

from .perplexity import perplexity


def test_perplexity_weighs_every_token_alike(base: LlamaForCausalLM) -> None:
    texts = [[3, 4, 5, 6], [3, 9]]
    losses = [base(torch.tensor([text]), labels=torch.tensor([text])).loss.item() for text in texts]
    assert perplexity(base, texts) == pytest.approx(math.exp((3 * losses[0] + losses[1]) / 4), rel=1e-4)


def test_a_model_that_knows_nothing_is_as_unsure_as_its_vocabulary_is_long(base: LlamaForCausalLM) -> None:
    with torch.no_grad():
        base.lm_head.weight.zero_()
    assert perplexity(base, [[3, 4, 5]]) == pytest.approx(len(base.lm_head.weight))
