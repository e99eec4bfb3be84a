"""Which adapters run, and which has to go."""

import pytest

from loraloom.server.admission.asked import Holder
from loraloom.server.admission.places import Places

A, B, C, JOB = Holder("a"), Holder("b"), Holder("c"), Holder("a", background=True)
HOLD = 5.0


@pytest.fixture
def places() -> Places:
    """Three places, none of them kept for anybody."""
    return Places(3, reserve=0, hold=HOLD)


@pytest.fixture
def fair_places() -> Places:
    """Three places, the last of them for those that have none."""
    return Places(3, reserve=1, hold=HOLD)


def fill(places: Places, *names: str, holder: Holder = A, now: float = 0.0) -> None:
    for name in names:
        assert places.has_room(name, holder)
        places.take(name, holder, now)


def test_there_are_so_many_and_what_runs_is_joined(places: Places) -> None:
    fill(places, "x", "y", "z")
    assert places.has_room("y", B)
    assert not places.has_room("w", B)
    fill(places, "y", holder=B)
    places.give_back("y", A)
    assert not places.has_room("w", B)
    places.give_back("y", B)
    assert places.has_room("w", B)
    assert list(places._places) == ["x", "z"]


def test_the_last_place_is_for_keys_that_have_none(fair_places: Places) -> None:
    fill(fair_places, "x", "y")
    assert not fair_places.has_room("z", A)
    assert not fair_places.has_room("z", JOB)
    assert fair_places.has_room("z", B)
    fill(fair_places, "z", holder=B)
    assert fair_places.has_room("z", A)  # to share a place takes none


def test_one_place_is_for_everybody() -> None:
    places = Places(1, reserve=1, hold=HOLD)
    assert places.has_room("x", A)
    assert places.has_room("x", JOB)


def test_one_adapter_drains_for_one_that_was_passed_over_for_long(places: Places) -> None:
    fill(places, "x", "x", "y", "z", "z")
    places.pass_over("cold", B, 10.0)
    places.make_room(10.0 + HOLD - 0.1)
    assert places.has_room("y", A)
    places.make_room(10.0 + HOLD)
    assert [places.has_room(name, A) for name in "xyz"] == [True, False, True]  # y has the fewest requests
    places.give_back("y", A)
    assert not places.has_room("y", A)
    assert not places.has_room("new", A)
    assert places.has_room("cold", B)
    fill(places, "cold", holder=B, now=16.0)
    places.make_room(16.0)
    assert [places.has_room(name, A) for name in "xz"] == [True, True]


def test_what_has_just_begun_to_run_stays_for_a_while(places: Places) -> None:
    fill(places, "x", "y", "z", now=9.0)
    places.pass_over("cold", B, 0.0)
    places.make_room(9.0 + HOLD - 0.1)
    assert all(places.has_room(name, A) for name in "xyz")
    places.make_room(9.0 + HOLD)
    assert [places.has_room(name, A) for name in "xyz"].count(False) == 1


def test_a_quarter_drains_at_a_time_and_the_first_that_is_due_gets_the_first_place() -> None:
    places, names = Places(8, reserve=0, hold=HOLD), "stuvwxyz"
    fill(places, *names)
    for since, (name, holder) in enumerate([("first", B), ("second", C), ("third", C)]):
        places.pass_over(name, holder, since)
    places.make_room(10.0)
    draining = [name for name in names if not places.has_room(name, A)]
    assert len(draining) == 2
    places.give_back(draining[1], A)
    assert places.has_room("first", B)
    assert not places.has_room("second", C)
    places.give_back(draining[0], A)
    fill(places, "first", holder=B)
    assert places.has_room("second", C)
    assert places.has_room("second", B)


def test_no_more_drain_than_are_needed() -> None:
    places, names = Places(8, reserve=0, hold=HOLD), "stuvwxyz"
    fill(places, *names)
    places.pass_over("first", B, 1.0)
    places.pass_over("second", C, 2.0)
    places.make_room(10.0)
    draining = [name for name in names if not places.has_room(name, A)]
    places.forget("second", C)
    places.make_room(10.0)
    left = [name for name in names if not places.has_room(name, A)]
    assert len(left) == 1 < len(draining)
    places.pass_over(left[0], A, 10.0)  # what drains is due itself, later: nothing else drains for it until it has gone
    places.make_room(20.0)
    assert [name for name in names if not places.has_room(name, A)] == left


def test_nobody_drains_any_more_for_a_request_that_has_left(places: Places) -> None:
    fill(places, "x", "y", "z")
    places.pass_over("cold", B, 0.0)
    places.make_room(10.0)
    places.forget("cold", C)
    places.make_room(10.0)
    assert not all(places.has_room(name, A) for name in "xyz")
    places.forget("cold", B)
    places.make_room(10.0)
    assert all(places.has_room(name, A) for name in "xyz")


def test_whoever_has_the_most_places_gives_one_up(places: Places) -> None:
    fill(places, "mine", holder=B)
    fill(places, "x", "x", "y", "y", holder=A)
    places.pass_over("cold", B, 0.0)
    places.make_room(10.0)
    assert places.has_room("mine", B)
    assert [places.has_room(name, A) for name in "xy"] == [False, True]


def test_between_keys_that_have_the_same_it_is_whoever_wants_more(places: Places) -> None:
    fill(places, "x", "x", holder=A)
    fill(places, "y", holder=B)
    fill(places, "z", holder=C)
    places.pass_over("cold", A, 0.0)
    places.make_room(10.0)
    assert [places.has_room(name, A) for name in "xyz"] == [False, True, True]


def test_what_only_jobs_need_goes_first_and_no_room_is_made_for_jobs(places: Places) -> None:
    fill(places, "x", "y", holder=A)
    fill(places, "z", "z", "z", holder=JOB)
    places.pass_over("job's", JOB, 0.0)
    places.make_room(10.0)
    assert all(places.has_room(name, A) for name in "xyz")
    places.pass_over("cold", B, 0.0)
    places.make_room(10.0)
    assert [places.has_room(name, A) for name in "xyz"] == [True, True, False]


def test_who_has_none_takes_the_last_place_past_those_that_are_due_for_more(fair_places: Places) -> None:
    fill(fair_places, "x", "y", holder=A)
    fair_places.pass_over("cold", A, 0.0)
    fair_places.make_room(10.0)
    assert fair_places.has_room("b", B)
    fill(fair_places, "b", holder=B)
    victim = next(name for name in "xy" if not fair_places.has_room(name, A))
    fair_places.give_back(victim, A)
    fair_places.make_room(11.0)
    assert fair_places.has_room("c", C)
    assert not fair_places.has_room("cold", A)  # the last place is not for it
    assert not fair_places.has_room(next(name for name in "xy" if name != victim), A)  # another one drains
