"""Who gets a seat."""

import pytest

from loraloom.server.admission.asked import Holder
from loraloom.server.admission.seats import Seats

MANY, FEW, NEW, JOB = Holder("many"), Holder("few"), Holder("new"), Holder("many", background=True)


@pytest.fixture
def seats() -> Seats:
    return Seats(8, reserve=1)


def test_one_key_gets_all_but_the_reserve_and_another_gets_that_at_once(seats: Seats) -> None:
    while seats.fit(MANY, 1):
        seats.take(MANY, 1)
    assert (seats.held(MANY), seats.free) == (7, 1)
    assert seats.fit(FEW, 1)
    seats.take(FEW, 1)
    assert not seats.fit(NEW, 1)


def test_the_reserve_fills_up_again_from_whoever_has_much(seats: Seats) -> None:
    seats.take(MANY, 7)
    seats.take(FEW, 1)
    seats.give_back(MANY, 1)
    assert not seats.fit(MANY, 1)
    assert not seats.fit(FEW, 1)
    assert seats.fit(NEW, 1)


def test_without_a_reserve_every_seat_is_for_everybody() -> None:
    seats = Seats(2, reserve=0)
    seats.take(MANY, 1)
    assert seats.fit(MANY, 1)
    seats.take(MANY, 1)
    assert not seats.fit(NEW, 1)
    seats.give_back(MANY, 2)
    assert (seats.held(MANY), seats.free) == (0, 2)


def test_jobs_never_get_the_reserve(seats: Seats) -> None:
    seats.take(MANY, 7)
    assert seats.fit(FEW, 1)
    assert not seats.fit(JOB, 1)
    seats.give_back(MANY, 1)
    assert seats.fit(JOB, 1)


def test_while_seats_are_gathered_others_have_the_reserve_among_them(seats: Seats) -> None:
    seats.take(MANY, 4)
    assert not seats.fit(FEW, 4)
    assert seats.fit(NEW, 1)
    assert not seats.fit(NEW, 1, gatherer=FEW)  # others than the gatherer hold more than the reserve already
    seats.give_back(MANY, 4)
    assert seats.fit(NEW, 1, gatherer=FEW)
    assert not seats.fit(NEW, 2, gatherer=FEW)


def test_the_largest_request_gets_its_seats_though_somebody_always_has_the_reserve(seats: Seats) -> None:
    seats.take(FEW, 1)
    assert seats.fit(MANY, 7)
    assert not seats.fit(JOB, 7)
    seats.take(MANY, 1)
    assert not seats.fit(MANY, 6)  # it would have more than it ever can, with what it has
