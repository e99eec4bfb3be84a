import torch

from tests.compose.scorers.architectures import CONFIGS, tiny


def test_every_model_knows_where_its_tokens_are() -> None:
    """Otherwise a wrong position would go unnoticed."""
    for name in CONFIGS:
        with torch.inference_mode():
            model = tiny(name)
            first, second = (
                model(torch.tensor([[5, 6, 7, 8]])).logits[0, -1],
                model(torch.tensor([[7, 6, 5, 8]])).logits[0, -1],
            )
        assert (first - second).abs().max() > 0.05, name
