"""Results as files."""

import pytest

from loraloom.compose.result import Chosen, Comparison, HeldOut, Result, Sample, Verdict, result_from


def result(**fields: object) -> Result:
    held_out = HeldOut(1.25, 1.0, 1.5, 1.25, 0.5, 40.0)
    values = {
        "job": "blend-20260101-abcd",
        "name": "blend",
        "objective": "loss",
        "chosen": Chosen({"a@1": 0.7, "b@1": 0.0}, "search", 9, 1.1, 1.12, "0.7*a@1", 4, 0.0),
        "held_out": {"composition": held_out, "nothing": HeldOut(3.0, 2.5, 3.5, 3.0, 0.0, 40.0, "x")},
        "comparisons": {"nothing": Comparison(1.75, 1.0, 2.5, 0.001)},
        "verdict": Verdict("undecidable", 8, "because"),
        "samples": (Sample("prompt", "expected", {"nothing": "é"}),),
        "provenance": {"base": "tiny", "pool": [{"adapter": "a@1"}]},
    }
    return Result(**{**values, **fields})  # type: ignore[arg-type]


def test_a_result_reads_back() -> None:
    given = result(published="blend@2", publication="published as blend@2")
    assert result_from(given.text()) == given
    assert given.text().endswith("}\n")


def test_what_is_no_number_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        result(provenance={"loss": float("nan")}).text()


@pytest.mark.parametrize(
    ("name", "text"),
    [("better", "better"), ("not better", "not better"), ("undecidable", "undecidable with 8 examples")],
)
def test_a_verdict_says_on_how_much_it_rests(name: str, text: str) -> None:
    assert str(Verdict(name, 8, "")) == text  # type: ignore[arg-type]
