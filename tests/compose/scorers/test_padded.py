import torch

from loraloom.compose.scorers.padded import padded
from loraloom.compose.scoring import Row

CPU = torch.device("cpu")
ROWS = (Row((1, 2, 3), (4, 9)), Row((1,), (6, 9)), Row((1, 2, 5, 6), (7, 8, 9)))


def test_rows_are_padded_on_the_right_and_lack_their_last_token() -> None:
    batch = padded(ROWS, 0, 100, CPU)
    assert batch.tokens.tolist() == [[1, 2, 3, 4, 0, 0], [1, 6, 0, 0, 0, 0], [1, 2, 5, 6, 7, 8]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1] * 6]
    assert batch.lengths == (2, 2, 3)
    assert batch.target.tolist() == [4, 9, 6, 9, 7, 8, 9]


def test_every_answer_token_is_predicted_from_the_token_before_it() -> None:
    batch = padded(ROWS, 0, 100, CPU)
    before = batch.tokens[:, batch.keep].flatten()[batch.place]
    assert before.tolist() == [3, 4, 1, 6, 6, 7, 8]


def test_a_batch_goes_as_far_as_there_is_room() -> None:
    assert padded(ROWS, 0, 10, CPU).lengths == (2, 2)
    assert padded(ROWS, 0, 9, CPU).lengths == (2,)
    assert padded(ROWS, 1, 14, CPU).lengths == (2, 3)
    assert padded(ROWS, 2, 1, CPU).lengths == (3,)
