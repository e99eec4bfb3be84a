"""The numbers that the queue goes by."""

import pytest

from loraloom.server.admission.rules import Rules, usual_reserve
from loraloom.server.errors import InvalidSettings


@pytest.mark.parametrize(("seats", "reserve"), [(1, 0), (2, 1), (8, 1), (16, 2), (256, 32)])
def test_the_usual_reserve_is_an_eighth_and_leaves_a_seat(seats: int, reserve: int) -> None:
    assert usual_reserve(seats) == reserve
    assert Rules(seats, 4, reserve).most_seats == seats - reserve >= 1


@pytest.mark.parametrize(("seats", "adapters", "reserve"), [(0, 1, 0), (1, 0, 0), (4, 1, 4), (4, 1, -1)])
def test_what_leaves_nothing_to_share_is_refused(seats: int, adapters: int, reserve: int) -> None:
    with pytest.raises(InvalidSettings):
        Rules(seats, adapters, reserve)
