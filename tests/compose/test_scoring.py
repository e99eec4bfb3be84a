"""What a row is."""

import pytest

from loraloom.compose.scoring import Row, never


def test_a_row_is_as_long_as_both_its_parts() -> None:
    assert len(Row((1, 2, 3), (4, 5))) == 5


@pytest.mark.parametrize(("prompt", "answer"), [((), (1,)), ((1,), ())])
def test_a_row_has_both(prompt: tuple[int, ...], answer: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError, match="a row has"):
        Row(prompt, answer)


def test_never_gives_nothing_up() -> None:
    assert not never(0, [])
