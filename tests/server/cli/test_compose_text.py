"""What the command line says about jobs."""

from loraloom.compose.jobs import Job, State
from loraloom.compose.result import Comparison, HeldOut, Verdict
from loraloom.server.cli.compose_text import composed_text, found, standing
from tests.compose.test_result import result


def test_where_a_job_stands(tmp_path: object) -> None:
    from pathlib import Path

    job = Job(Path("/jobs/blend-1"))
    assert standing(job, State("running", "", 7, 1.25)) == "running after 7 trials, best objective 1.2500"
    assert standing(job, State("interrupted", "the disk is full", 7, None)) == (
        "interrupted after 7 trials: the disk is full. `loraloom compose resume blend-1` goes on"
    )
    assert standing(job, State("created", "", 0, None)).startswith("created after 0 trials. `loraloom")


def test_the_verdict_comes_first_and_every_system_has_a_line() -> None:
    held_out = {
        "composition": HeldOut(1.25, 1.0, 1.5, 1.25, 0.5, 40.0),
        "best_single": HeldOut(2.5, 2.0, 3.0, 2.5, 0.25, 40.0, "a@1"),
    }
    comparisons = {"best_single": Comparison(1.25, 0.5, 2.0, 0.002)}
    given = result(
        held_out=held_out, comparisons=comparisons, verdict=Verdict("better", 20, "It is."), publication="published"
    )
    lines = found(given).splitlines()
    assert lines[:3] == ["better: It is.", "published", "model: 0.7*a@1"]
    assert lines[4].startswith("held out (nats a token, less is better)")
    assert lines[5].split() == ["composition", "1.250", "1.000", "to", "1.500"]
    assert lines[6].split() == [
        *("best", "adapter", "alone", "(a@1)", "2.500", "2.000", "to", "3.000"),
        *("+1.250", "(+0.500", "to", "+2.000),", "p", "0.002"),
    ]
    assert len(lines) == 7
    assert "share right" in found(result(objective="choice"))


def test_what_a_composed_version_says_of_itself() -> None:
    composed = {
        "job": "blend-1",
        "verdict": "better",
        "examples": {"seen": 10, "held_out": 20},
        "optimizer": {"name": "CMA", "budget": 40, "seed": 3},
        "versions": {"nevergrad": "1.0.12"},
        "rank_before": 40,
        "seen": {"loss": 0.25, "objective": 0.27},
        "held_out": {"composition": {"score": 0.5}, "best_single": {"score": 1.5, "detail": "a@1"}},
    }
    text = composed_text({"mixture": "0.7*a@1+0.3*b@2", "rank": 24, "error": 0.001, "composed": composed})
    assert text is not None
    assert text.splitlines() == [
        "composed by job blend-1: better",
        "  0.7*a@1+0.3*b@2, rank 40 -> 24, relative error of truncation 0.001",
        "  CMA (nevergrad 1.0.12), budget 40, seed 3; 10 examples seen, 20 held out; loss on those seen 0.25",
        "  held out: composition 0.5, best_single (a@1) 1.5",
    ]
    assert composed_text({"source": "folder"}) is None
    assert composed_text({"composed": {"job": "one"}}) is None
