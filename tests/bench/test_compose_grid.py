"""What the bench on a known optimum concludes."""

from tests.bench.compose_grid import Point, outcome

POINTS = [Point((0.0, 0.0, 0.0), 2.0, 0.0), Point((0.7, 0.7, 0.0), 1.0, 0.75), Point((1.0, 0.4, 0.0), 1.1, 0.8)]


def test_the_goal_is_a_share_of_the_gain() -> None:
    found = outcome({0: (1.04, 0.8), 1: (1.06, 0.7)}, POINTS)
    assert [goal.met for goal in found.goals] == [True, True, False, False]
    assert found.results["share_of_gain"] == {"0": 0.96, "1": 0.94}
    lines = str(found.table).splitlines()
    assert lines[3].startswith("grid, least loss: 0.7, 0.7 ")
    assert lines[4].startswith("grid, most right: 1, 0.4 ")
    assert lines[5].endswith("1.0400 |   80% |              96.0%")


def test_a_job_may_find_more_than_the_grid() -> None:
    assert all(goal.met for goal in outcome({0: (0.9, 0.8)}, POINTS).goals)
