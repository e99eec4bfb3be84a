"""How well a model foresees texts."""

import math
from collections.abc import Sequence

import torch
from peft import PeftModel
from transformers import PreTrainedModel


@torch.inference_mode()
def perplexity(model: PreTrainedModel | PeftModel, texts: Sequence[Sequence[int]]) -> float:
    """The exponential of the mean loss in nats of all tokens but each text's first."""
    losses = []
    for text in texts:
        ids = torch.tensor([text])
        logits = model(ids, use_cache=False).logits[0, :-1].float()
        losses.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none"))
    return math.exp(torch.cat(losses).mean().item())
