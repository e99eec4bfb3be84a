import pytest

from loraloom.compose.report.bars import by_size, draw_bars
from loraloom.compose.report.ink import BAD, GOOD, chart, drawing

WEIGHTS = {"sql@4": 0.2, "date@1": -0.9, "home@1": 0.0, "units@2": 0.2}


def drawn(weights: dict[str, float], most: int = 40) -> tuple[list[str], list[str], list[float], list[object]]:
    """Labels, texts, widths and colours, from the top."""
    with drawing("test"):
        _, axes = chart(6, 3)
        draw_bars(axes, weights, most)
    labels = [each.get_text() for each in axes.get_yticklabels()]
    widths = [each.get_width() for each in axes.patches]  # type: ignore[attr-defined]
    colours = [each.get_facecolor() for each in axes.patches]
    return labels, [each.get_text() for each in axes.texts], widths, colours


def test_the_heaviest_is_on_top_whatever_its_sign() -> None:
    assert by_size(WEIGHTS) == [("date@1", -0.9), ("sql@4", 0.2), ("units@2", 0.2), ("home@1", 0.0)]
    labels, texts, widths, _ = drawn(WEIGHTS)
    assert labels == ["date@1", "sql@4", "units@2", "home@1"]
    assert texts == ["\N{MINUS SIGN}0.90", "0.20", "0.20", "0.00"]
    assert widths == [-0.9, 0.2, 0.2, 0.0]


def test_signs_differ_in_colour_and_in_direction() -> None:
    from matplotlib.colors import to_rgba

    _, _, widths, colours = drawn(WEIGHTS)
    assert colours[:2] == [to_rgba(BAD), to_rgba(GOOD)]
    assert widths[0] < 0 < widths[1]


def test_a_small_weight_is_not_written_as_none() -> None:
    assert drawn({"sql@4": 1.0, "date@1": -0.0004})[1][1] == "\N{MINUS SIGN}0.0004"


@pytest.mark.parametrize(("count", "said"), [(3, None), (4, "1 more adapter, at most 0.4"), (30, "27 more adapters")])
def test_of_many_the_heaviest_are_drawn(count: int, said: str | None) -> None:
    weights = {f"adapter-{place}@1": 1 - 0.2 * place if place < 5 else 0.01 for place in range(count)}
    labels, texts, widths, _ = drawn(weights, most=3)
    assert len(widths) == 3
    assert labels[:3] == ["adapter-0@1", "adapter-1@1", "adapter-2@1"]
    assert (len(texts) == 4) == (said is not None)
    assert said is None or texts[-1].startswith(said)


def test_all_zeros_are_drawn_too() -> None:
    assert drawn({"sql@4": 0.0, "date@1": 0.0})[2] == [0, 0]
