"""A store of tiny adapters, and jobs on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.compose.jobs import Job, Jobs
from loraloom.compose.plan import Plan, planned, with_examples
from loraloom.compose.spec import spec_from
from tests.tiny_models import MakeAdapter

WORDS = ("select", "the", "date", "from", "table", "where", "name", "is", "known")
EXAMPLES = [
    {"prompt": f"select the {first} from {second}", "completion": f" the {second}"}
    for first, second in (("date", "table"), ("name", "date"), ("table", "name"), ("date", "known"), ("is", "where"))
]

Planned = Callable[..., Plan]
MakeJob = Callable[..., Job]


@pytest.fixture
def store(tiny_base: Path, make_adapter: MakeAdapter, tmp_path: Path) -> Store:
    """The adapters a, b (rank 4) and org/c (rank 2) of the tiny base."""
    store, base = Store.open(tmp_path / "store"), fingerprint(tiny_base)
    for seed, (name, rank) in enumerate((("a", 4), ("b", 4), ("org/c", 2))):
        folder = make_adapter(name.replace("/", "-"), seed=seed, r=rank, lora_alpha=4 * rank)
        store.publish(folder, name, base=base, base_name=str(tiny_base))
    return store


@pytest.fixture
def plan(store: Store) -> Planned:
    """A callable `plan(**fields of the description) -> Plan`."""

    def make(**fields: Any) -> Plan:
        return planned(
            with_examples(spec_from({"examples": EXAMPLES, "optimizer": {"name": "CMA", "budget": 8}, **fields})), store
        )

    return make


@pytest.fixture
def make_job(plan: Planned, store: Store, tmp_path: Path) -> MakeJob:
    """A callable `make_job(**fields of the description) -> Job`."""

    def make(**fields: Any) -> Job:
        return Jobs(tmp_path / "jobs").create(plan(**fields), store.url)

    return make
