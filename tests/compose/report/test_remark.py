from dataclasses import replace

from loraloom.compose.report.remark import format_remark
from loraloom.compose.result import Comparison
from tests.compose.report.found import result_of, without_in_context

RESULT = result_of()
NOTHING_GAINED = Comparison(0.01, -0.2, 0.2, 0.4)


def against_examples(comparison: Comparison) -> str:
    return format_remark(replace(RESULT, comparisons={**RESULT.comparisons, "in_context": comparison}))


def test_a_gain_over_examples_in_the_prompt_is_more_than_format() -> None:
    remark = against_examples(Comparison(0.5, 0.3, 0.7, 0.001))
    assert "more than format" in remark
    assert "at 812 prompt tokens a request instead of 46" in remark


def test_where_examples_do_as_well_the_gain_is_format() -> None:
    assert "does as well" in against_examples(Comparison(-0.1, -0.3, 0.1, 0.8))
    assert "is likely the format" in against_examples(Comparison(-0.1, -0.3, 0.1, 0.8))
    assert "may be the format" in against_examples(NOTHING_GAINED)


def test_without_a_gain_there_is_nothing_to_say() -> None:
    assert format_remark(replace(RESULT, comparisons={**RESULT.comparisons, "nothing": NOTHING_GAINED})) == ""
    assert format_remark(replace(RESULT, comparisons={})) == ""


def test_what_was_not_measured_cannot_tell() -> None:
    assert "was not measured" in format_remark(without_in_context(RESULT))
