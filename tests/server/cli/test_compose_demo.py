"""`loraloom compose demo`: its jobs, as far as a unit test can go; `make demo-compose` runs one."""

from pathlib import Path

import pytest

from loraloom.adapters.store import Store
from loraloom.compose.plan import planned, with_examples
from loraloom.compose.spec import read_spec
from loraloom.demo.catalog import demo_jobs
from loraloom.server.cli.demo import fill
from tests.server.cli.conftest import Loraloom


def test_a_job_that_the_demo_has_not(loraloom: Loraloom) -> None:
    outcome = loraloom("compose", "demo", "nobody")
    assert outcome.status == 1
    assert outcome.err == "loraloom: the demo has no job 'nobody'; it has chat, people, two-tasks\n"


@pytest.mark.parametrize("name", demo_jobs())
def test_the_demos_jobs_fit_its_adapters(demo_model: Path, tmp_path: Path, name: str) -> None:
    store = Store.open(tmp_path / "store")
    fill(store, demo_model)
    spec = with_examples(read_spec(demo_jobs()[name])).model_copy(update={"base": str(demo_model)})
    plan = planned(spec, store)
    assert plan.spec.name == name
    assert len(plan.holdout.folds) == 1
    assert (plan.holdout.seen, plan.holdout.held) == (10, 11 if name == "chat" else 20)
    assert len(plan.pool.members) == (4 if name == "two-tasks" else 8)
