import pytest
import torch
from transformers import DynamicCache, PreTrainedModel

from loraloom.compose.scorers.forward import Forward, shorten
from loraloom.compose.scorers.packed import common_prefix
from loraloom.compose.scoring import Row, RowScore
from tests.compose.scorers.architectures import CONFIGS, tiny

ROWS = (
    Row((1, 5, 9, 20, 33), (7, 8, 2)),
    Row((1, 5, 9, 41), (17, 2)),
    Row((1, 5, 9, 20, 21, 22, 50, 51), (60, 61, 62, 63, 2)),
    Row((1, 5, 9, 20, 33), (9, 2)),
)
PACKING = {"llama", "qwen2", "gemma2", "mistral, short window", "gpt2"}


@torch.inference_mode()
def plain(model: PreTrainedModel, row: Row) -> float:
    """The row's loss, alone through the whole model."""
    logits = model(torch.tensor([row.prompt + row.answer])).logits[0, len(row.prompt) - 1 : -1].log_softmax(-1)
    return -sum(logits[place, token].item() for place, token in enumerate(row.answer))


@torch.inference_mode()
def scored(forward: Forward, limit: int) -> list[RowScore]:
    """All rows, batch after batch."""
    cache, found = forward.cache(ROWS), []
    while len(found) < len(ROWS):
        batch = forward.batch(ROWS, len(found), limit)
        found += batch.scores(forward.logits(batch, 1, cache))[0]
        if cache is not None:
            shorten(cache, common_prefix(ROWS))
    return found


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("limit", [1, 18, 1000])
def test_every_architecture_scores_as_when_each_row_is_alone(name: str, limit: int) -> None:
    model = tiny(name)
    found = scored(Forward(model), limit)
    assert [each.nll for each in found] == pytest.approx([plain(model, row) for row in ROWS], rel=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_are_packed_where_the_model_understands_it(name: str) -> None:
    forward = Forward(tiny(name))
    assert forward.packs == (name in PACKING)
    lines = len(forward.batch(ROWS, 0, 1000).tokens)
    assert lines == (1 if forward.packs and name != "mistral, short window" else len(ROWS))


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_half_precision_is_no_reason_not_to_pack(name: str) -> None:
    assert Forward(tiny(name, torch.bfloat16)).packs


def test_a_cache_is_shortened_to_its_first_tokens_and_some_lines() -> None:
    cache = DynamicCache()
    with torch.inference_mode():
        tiny("llama")(torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8], [1, 5, 2, 6]]), past_key_values=cache)
    keys = cache.layers[0].keys
    assert keys is not None
    shorten(cache, 3, [2, 0])
    assert torch.equal(cache.layers[0].keys, keys[[2, 0], :, :3])
    shorten(cache, 3)
    assert cache.get_seq_length() == 3
