from loraloom.compose.scorers.race import Race
from loraloom.compose.scoring import Row, RowScore, never

ROWS = [Row((1,), (2,))] * 4


def scores(*nll: float) -> list[RowScore]:
    return [RowScore(each, 1, False) for each in nll]


def test_all_go_to_the_end_if_nobody_stops_them() -> None:
    race = Race(range(2), ROWS, never)
    assert race.add([scores(1, 2), scores(3, 4)]) is None
    assert (race.going, race.done) == ([0, 1], 2)
    assert race.add([scores(5, 6), scores(7, 8)]) is None
    assert race.going == []
    assert race.scores == [scores(1, 2, 5, 6), scores(3, 4, 7, 8)]


def test_who_is_given_up_keeps_what_it_has_and_is_asked_about_by_its_own_number() -> None:
    asked = []

    def stop(candidate: int, known: object) -> bool:
        asked.append(candidate)
        return candidate == 11

    race = Race(range(10, 13), ROWS, stop)
    assert race.add([scores(1), scores(2), scores(3)]) == [0, 2]
    assert race.going == [0, 2]
    assert race.add([scores(4), scores(5)]) is None
    assert race.scores == [scores(1, 4), scores(2), scores(3, 5)]
    assert asked == [10, 11, 12, 10, 12]


def test_nobody_is_asked_about_after_the_last_row() -> None:
    race = Race(range(1), ROWS, lambda candidate, known: True)
    assert race.add([scores(1, 2, 3, 4)]) is None
    assert race.scores == [scores(1, 2, 3, 4)]


def test_when_all_are_given_up_it_is_over() -> None:
    race = Race(range(2), ROWS, lambda candidate, known: True)
    assert race.add([scores(1), scores(2)]) == []
    assert race.going == []
