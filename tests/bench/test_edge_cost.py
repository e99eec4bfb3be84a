from pathlib import Path

import pytest
import uvloop

from loraloom.server.access.keyring import KeyRing
from loraloom.server.access.table import KeyTable
from loraloom.server.errors import Unauthenticated
from tests.bench import edge_cost
from tests.bench.edge_cost import (
    BARE,
    BARE_STREAMED,
    KEYS,
    LEDGER,
    LIMIT,
    LOG,
    LOOKING,
    PARTS,
    PROMPT,
    STREAMED,
    TOKENS,
    WHOLE,
    keys_of,
    measured,
    observed,
    outcome,
    trials,
)
from tests.bench.edge_store import filled

SIZE, COUNT = 1, 8


def test_requests_are_limited_counted_and_told_unless_that_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_cost, "COUNT", COUNT)
    store = filled(tmp_path / "store", SIZE)
    with observed(tmp_path) as observer, keys_of(store) as keys:
        each = trials(store, observer, keys)
        samples = uvloop.run(measured(each, runs=0))
    ledger = [line for path in (tmp_path / "usage").iterdir() for line in path.read_text().splitlines()]
    log = (tmp_path / "server.log").read_text().splitlines()
    # What is selected is in the ledger, and every request to the gate is in the log.
    selecting = ["select", "admit", "lease", WHOLE, *PARTS, LOOKING, STREAMED]
    assert len(ledger) == COUNT * (len(selecting) - 1)
    assert len(log) == COUNT * (len(each) - len([BARE, BARE_STREAMED, "the account", LOG]))
    assert f'"prompt":{PROMPT},"cached":0,"output":{TOKENS}' in ledger[0]
    assert {WHOLE, LEDGER, LOG, LOOKING, "authenticate"} < samples.keys()


def test_the_keys_are_over_when_it_has_been_measured(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", SIZE)
    with keys_of(store) as keys:
        table = KeyTable(KeyRing(store))
        assert {name: table.access_of(key).quota.rpm for name, key in keys.items()} == {
            name: terms.rpm for name, terms in KEYS.items()
        }
    table.look()
    for key in keys.values():
        with pytest.raises(Unauthenticated, match="revoked"):
            table.access_of(key)


@pytest.mark.parametrize(("whole", "met"), [(LIMIT, True), (LIMIT + 10, False)])
def test_the_whole_gate_decides_about_the_goal(whole: float, met: bool) -> None:
    costs = {BARE: 0.0, "select": 100.0, "lease": whole, WHOLE: whole, **dict.fromkeys(PARTS, whole - 30.0)}
    others = {LOOKING: whole + 50.0, BARE_STREAMED: 10.0, STREAMED: 900.0}
    samples = {about: [cost, cost] for about, cost in (costs | others).items()}
    made = outcome(samples)
    assert [goal.met for goal in made.goals] == [met, False]
    assert {about: value["value"] for about, value in made.results.items()} == {  # type: ignore[index]
        "select": 100.0,
        "lease": whole - 100.0,
        WHOLE: whole,
        **{f"of which {part}": 30.0 for part in PARTS},
        LOOKING: whole + 50.0,
        STREAMED: 890.0,
    }
