import math

import pytest
import torch

from loraloom.compose.scorers.batches import Batch

# Two rows in one line: the first has two answer tokens, the second one, at the same place as the first's second.
BATCH = Batch(
    tokens=torch.tensor([[5, 6, 7]]),
    inputs={"attention_mask": torch.ones(1, 1, 3, 3), "position_ids": torch.arange(3)[None]},
    keep=torch.tensor([0, 2]),
    place=torch.tensor([0, 1, 1]),
    target=torch.tensor([1, 0, 3]),
    lengths=(2, 1),
)
LOGITS = torch.tensor([[[0.0, 3, 0, 0], [2, 0, 0, 1]], [[4, 0, 0, 0], [0, 0, 0, 5]]])


def test_a_rows_score_is_of_its_own_answer_tokens() -> None:
    first, second = BATCH.scores(LOGITS)
    for found, logs in zip((first, second), LOGITS.double().log_softmax(-1), strict=True):
        expected = [-(logs[0, 1] + logs[1, 0]).item(), -logs[1, 3].item()]
        assert [each.nll for each in found] == pytest.approx(expected)
    assert [each.tokens for each in first] == [2, 1]
    assert [each.exact for each in (*first, *second)] == [True, False, False, True]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_an_infinite_loss(broken: float) -> None:
    logits = LOGITS.clone()
    logits[0, 0] = broken
    first, second = BATCH.scores(logits)
    assert (first[0].nll, first[0].exact) == (math.inf, False)
    assert math.isfinite(first[1].nll)
    assert second == BATCH.scores(LOGITS)[1]


def test_half_precision_is_widened_before_the_logarithm() -> None:
    found = BATCH.scores(LOGITS.bfloat16())
    assert found == BATCH.scores(LOGITS)


def test_every_candidate_gets_the_same_arguments() -> None:
    arguments = BATCH.arguments(3)
    assert arguments["input_ids"].tolist() == [[5, 6, 7]] * 3
    assert arguments["attention_mask"].shape == (3, 1, 3, 3)
    assert arguments["position_ids"].tolist() == [[0, 1, 2]] * 3
