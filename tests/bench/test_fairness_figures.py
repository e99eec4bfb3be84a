import pytest

from tests.bench.fairness_figures import (
    BASE,
    COLD,
    FAIR,
    IDLE,
    ONE_KEY,
    OWN,
    ROUNDS,
    VLLMS,
    Phase,
    Taken,
    outcome,
    ratios,
)
from tests.bench.flood import Flow

STEP = 0.06


def taken(rounds: int, beside: float, own: float = 0.1) -> dict[Phase, list[Taken]]:
    """An idle server's first token takes 0.1 s; beside the flood those of the base take `beside`."""
    idle = Taken({BASE: [0.1] * 3, OWN: [0.1] * 3, COLD: [0.2] * 3})
    fair = Taken({BASE: [beside] * 3, OWN: [own] * 3, COLD: [0.4] * 3}, Flow(90.0, STEP, 9.0))
    without = Taken({BASE: [20.0], OWN: [21.0], COLD: [30.0]}, Flow(100.0, 0.07, 31.0))
    return {IDLE: [idle] * rounds, FAIR: [fair] * rounds, ONE_KEY: [without] * rounds, VLLMS: [without] * rounds}


@pytest.mark.parametrize(("beside", "met"), [(0.26, True), (0.27, False)])
def test_the_goal_is_twice_the_idle_time_and_a_step(beside: float, met: bool) -> None:
    made = outcome(taken(ROUNDS, beside), {})
    assert [(goal.about.split(":")[0], goal.met) for goal in made.goals] == [(BASE, met), (OWN, True)]
    assert made.goals[0].value == pytest.approx(beside / (2 * 0.1 + STEP))


def test_each_round_is_judged_by_its_own_idle_server() -> None:
    slow = {phase: [Taken({k: [10 * s for s in v] for k, v in each.first.items()}, each.flow) for each in of_phase]
            for phase, of_phase in taken(1, 0.26).items()}  # fmt: skip
    both = {phase: [*of_phase, *slow[phase]] for phase, of_phase in taken(2, 0.26).items()}
    assert ratios(both, BASE).value == pytest.approx(1.0)
    assert ratios(both, BASE).high == pytest.approx(2.6 / (2 * 1.0 + STEP))


def test_few_rounds_decide_nothing_and_what_was_not_measured_is_not_told() -> None:
    measured = taken(ROUNDS - 1, 5.0)
    del measured[VLLMS]
    made = outcome(measured, {})
    assert not made.goals
    assert "vLLM" not in f"{made.table}{made.notes}"


def test_the_table_and_the_notes_tell_what_it_costs() -> None:
    made = outcome(taken(2, 0.2), {})
    assert "beside the flood" in str(made.table)
    assert "30,000" in str(made.table)
    assert any("90.0 tokens/s, a step 60 ms, longest wait 9.0 s" in note for note in made.notes)
    assert any("fair to vLLM's own server: 0.90 [0.90, 0.90]" in note for note in made.notes)
