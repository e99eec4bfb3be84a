from dataclasses import replace

import pytest

from loraloom.compose.report.ink import chart, drawing
from loraloom.compose.report.systems import FAR, NATS, SYSTEMS, draw_systems, unit_of
from loraloom.compose.result import Result
from tests.compose.report.found import result_of, without_in_context


def texts(result: Result) -> tuple[list[str], list[str], str]:
    """Labels at the left, texts inside, and what the axis says."""
    with drawing("test"):
        _, axes = chart(6, 3)
        draw_systems(axes, result)
    return (
        [each.get_text() for each in axes.get_yticklabels()],
        [each.get_text() for each in axes.texts],
        axes.get_xlabel(),
    )


def test_every_system_is_drawn_with_its_score() -> None:
    result = result_of()
    labels, written, axis = texts(result)
    assert labels == [
        "composition",
        "no adapter",
        "best single adapter\ndate@1",
        "uniform mean",
        "examples in the prompt",
    ]
    assert written == [f"{result.held_out[system].score:.3f}" for system in SYSTEMS]
    assert axis == "held-out loss, nats a token (less is better)"


def test_shares_are_percentages_of_which_more_is_better() -> None:
    result = result_of("exact_match")
    _, written, axis = texts(result)
    assert written[0] == f"{100 * result.held_out['composition'].score:.1f}%"
    assert "more is better" in axis


def test_what_was_not_measured_says_so() -> None:
    labels, written, _ = texts(without_in_context(result_of()))
    assert labels[-1] == "examples in the prompt"
    assert written[-1] == "not measured"


def test_a_huge_loss_does_not_flatten_the_others() -> None:
    result = result_of()
    huge = replace(result.held_out["mean"], score=1e6, low=1e5, high=1e6)
    with drawing("test"):
        _, axes = chart(6, 3)
        draw_systems(axes, replace(result, held_out={**result.held_out, "mean": huge}))
    assert axes.get_xlim()[1] < 1.2 * FAR * max(each.score for name, each in result.held_out.items() if name != "mean")
    assert "1.0e+06" in [each.get_text() for each in axes.texts]


@pytest.mark.parametrize("objective", ["loss", "exact_match", "choice"])
def test_every_objective_has_its_unit(objective: str) -> None:
    assert (unit_of(objective) is NATS) == (objective == "loss")


def test_gains_have_a_sign() -> None:
    assert [NATS.gain(each) for each in (0.5, 0, -0.5)] == ["+0.500", "0.000", "\N{MINUS SIGN}0.500"]
