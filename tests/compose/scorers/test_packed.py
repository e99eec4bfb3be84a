import torch

from loraloom.compose.scorers.packed import Tree, common_prefix, packed
from loraloom.compose.scoring import Row

CPU = torch.device("cpu")
ROWS = (Row((1, 2, 3), (4, 9)), Row((1, 2, 5), (6, 9)), Row((1, 2, 5), (7, 9)))


def test_what_sequences_begin_with_is_there_once() -> None:
    tree = Tree()
    for sequence in ((1, 2, 3), (1, 2, 4), (1, 2, 4, 5)):
        tree.add(sequence)
    assert tree.tokens == [1, 2, 3, 4, 5]
    assert tree.paths == [[0, 1, 2], [0, 1, 3], [0, 1, 3, 4]]
    assert tree.visible().tolist() == [
        [True, False, False, False, False],
        [True, True, False, False, False],
        [True, True, True, False, False],
        [True, True, False, True, False],
        [True, True, False, True, True],
    ]


def test_a_tree_tells_what_it_lacks() -> None:
    tree = Tree()
    tree.add((1, 2, 3))
    assert [tree.missing(sequence) for sequence in ((1, 2, 3), (1, 2), (1, 4, 3), (2,), ())] == [0, 0, 2, 1, 0]


def test_the_common_prefix_leaves_every_prompt_its_last_token() -> None:
    assert common_prefix(ROWS) == 2
    assert common_prefix([Row((1, 2, 3), (4,)), Row((1, 2, 3), (5,))]) == 2
    assert common_prefix([Row((1, 2), (3, 4)), Row((1, 2, 3, 4), (5,))]) == 1
    assert common_prefix([Row((1,), (3,)), Row((1, 2), (5,))]) == 0
    assert common_prefix([Row((1, 2, 3), (4,)), Row((7, 2, 3), (4,))]) == 0


def test_all_rows_fit_into_one_line_without_the_last_tokens_of_answers() -> None:
    batch = packed(ROWS, 0, 100, CPU, torch.float32)
    assert batch.tokens.tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 2, 3, 3]]
    assert batch.lengths == (2, 2, 2)
    assert batch.keep[batch.place].tolist() == [2, 3, 4, 5, 4, 6]
    assert batch.target.tolist() == [4, 9, 6, 9, 7, 9]
    sees = (batch.inputs["attention_mask"][0, 0] == 0).tolist()
    assert [[place for place, seen in enumerate(line) if seen] for line in sees] == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],
        [0, 1, 4],
        [0, 1, 4, 5],
        [0, 1, 4, 6],
    ]


def test_later_batches_begin_after_the_common_prefix_and_see_it() -> None:
    first, second = packed(ROWS, 0, 4, CPU, torch.float32), packed(ROWS, 1, 4, CPU, torch.float32)
    assert (first.tokens.tolist(), first.lengths) == ([[1, 2, 3, 4]], (2,))
    assert (second.tokens.tolist(), second.lengths) == ([[5, 6, 7]], (2, 2))
    assert second.inputs["position_ids"].tolist() == [[2, 3, 3]]
    sees = (second.inputs["attention_mask"][0, 0] == 0).tolist()
    assert sees == [
        [True, True, True, False, False],
        [True, True, True, True, False],
        [True, True, True, False, True],
    ]


def test_a_batch_has_a_row_at_least_and_no_more_than_there_is_room_for() -> None:
    assert packed(ROWS, 0, 1, CPU, torch.float32).lengths == (2,)
    assert len(packed(ROWS, 0, 6, CPU, torch.float32).lengths) == 2
    assert len(packed(ROWS, 0, 7, CPU, torch.float32).lengths) == 3
