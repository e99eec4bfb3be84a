"""A model without most of its layers."""

import copy

from transformers import PreTrainedModel

from loraloom.demo.small import selected


def pruned(large: PreTrainedModel, layers: tuple[int, ...]) -> PreTrainedModel:
    """A new model with copies of some of another's layers, in order, and of all its other weights."""
    config = copy.deepcopy(large.config)
    config.num_hidden_layers = len(layers)
    small = type(large)(config)
    small.load_state_dict(selected(large.state_dict(), layers))
    return small.to(large.dtype).eval()
