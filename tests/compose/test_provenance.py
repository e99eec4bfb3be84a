"""Where a composition comes from."""

import json

from loraloom.compose.examples import digest
from loraloom.compose.provenance import provenance_of, published_provenance
from loraloom.compose.result import HeldOut, Verdict
from loraloom.compose.search import Found
from tests.compose.conftest import MakeJob, Planned
from tests.compose.test_trials import trial


def test_it_says_what_is_needed_to_make_it_again(make_job: MakeJob, plan: Planned) -> None:
    fields = {"holdout": 0.4, "optimizer": {"budget": 9, "seed": 4}}
    job, planned = make_job(**fields), plan(**fields)
    told = provenance_of(job, planned, {"a@1": 1.0, "b@1": 0.5, "org/c@1": 0.0})
    assert json.loads(json.dumps(told)) == told
    assert told["job"] == job.id
    assert told["pool"] == [member.as_json() for member in planned.pool.members]
    assert told["optimizer"] == planned.spec.optimizer.model_dump(mode="json")
    assert told["examples"] == {
        "sha256": digest(planned.holdout.examples),
        "seen": 3,
        "held_out": 2,
        "holdout": "0.4 of the examples",
    }
    assert (told["rank_before"], told["preselect"]) == (8, None)
    versions = told["versions"]
    assert isinstance(versions, dict)
    assert set(versions) == {"loraloom", "nevergrad", "torch", "transformers"}


def test_the_stores_record_has_the_scores_too() -> None:
    held_out = {"composition": HeldOut(1.0, 0.9, 1.1, 1.0, 0.5, 40.0)}
    told = published_provenance(
        {"job": "one"}, Found(trial(loss=1.5, objective=1.52), (0.7,), 0), held_out, Verdict("undecidable", 3, "")
    )
    assert told["job"] == "one"
    assert told["seen"] == {"loss": 1.5, "objective": 1.52}
    assert told["verdict"] == "undecidable with 3 examples"
    assert json.loads(json.dumps(told))["held_out"]["composition"]["loss"] == 1.0
