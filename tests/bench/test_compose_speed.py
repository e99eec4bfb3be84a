from collections.abc import Sequence

import pytest
import torch

from loraloom.adapters.arithmetic.factors import Factors
from loraloom.compose.scoring import Row, Weights
from tests.bench import compose_speed
from tests.bench.compose_speed import OURS, PORT, RANK, STOPPING, Case, Search, cases, outcome, raced, share, widened
from tests.bench.outcome import Goal

CASE = Case("CMA", 20)


def far(population: Sequence[Weights], best: float) -> list[float]:
    """The squared distance from a corner."""
    return [sum((weight - 1) ** 2 for weight in weights) for weights in population]


def test_every_side_tries_as_many_candidates_and_begins_in_turns() -> None:
    order: list[tuple[str, int]] = []

    def noting(name: str) -> compose_speed.Evaluate:
        def evaluate(population: Sequence[Weights], best: float) -> list[float]:
            order.append((name, len(population)))
            return far(population, best)

        return evaluate

    found = raced(CASE, {"a": noting("a"), "b": noting("b")})
    assert order == [("a", 8), ("b", 8), ("b", 8), ("a", 8), ("a", 4), ("b", 4)]
    assert [len(search.seconds) for search in found.values()] == [3, 3]
    assert found["a"].best == found["b"].best, "the same optimiser and seed"


def test_a_search_keeps_the_best_and_tells_the_next_population_of_it() -> None:
    told: list[float] = []

    def evaluate(population: Sequence[Weights], best: float) -> list[float]:
        told.append(best)
        return far(population, best)

    search = Search(CASE, evaluate)
    bests = []
    for _ in range(2):
        search.step(8)
        bests.append(search.best)
    assert told == [float("inf"), bests[0]]
    assert bests[1] <= bests[0]


def test_a_share_is_of_all_time_and_has_an_interval() -> None:
    found = share([1.0, 1.0, 4.0], [4.0, 4.0, 4.0])
    assert found.value == 0.5
    assert 0.25 <= found.low < 0.5 < found.high <= 1


def test_the_full_form_has_what_the_short_one_has_and_more() -> None:
    short, full = list(cases(False)), list(cases(True))
    assert set(short) < set(full)
    assert {case.budget for case in full} == {40, 400}
    assert {case.optimizer for case in short} == {"NGOpt", "CMA"}


def test_factors_are_widened_without_changing_the_update() -> None:
    given = Factors(torch.randn(3, 5), torch.randn(4, 3))
    wide = widened(given, (4, 5))
    assert wide.rank == RANK
    torch.testing.assert_close(wide.b @ wide.a, given.b @ given.a)
    nothing = widened(None, (4, 5))
    assert nothing.rank == RANK
    assert not (nothing.b @ nothing.a).any()


@pytest.mark.parametrize(("seconds", "best", "met"), [(0.3, 1.005, [True, True]), (0.4, 1.02, [False, False])])
def test_goals_are_of_time_and_of_where_the_search_ends(seconds: float, best: float, met: list[bool]) -> None:
    searches = {name: Search(CASE, far, [1.0, 1.0], 1.0) for name in (PORT, OURS, STOPPING)}
    searches[STOPPING] = Search(CASE, far, [seconds, seconds], best)
    found = outcome({CASE: searches}, [Row((1,), (2,))])
    assert all(isinstance(goal, Goal) for goal in found.goals)
    assert [goal.met for goal in found.goals] == met
    assert len(found.table.rows) == 3
