"""Who has a label of their own."""

import random

from loraloom.server.observe.labels import Labels


def test_at_first_whoever_comes_has_a_label() -> None:
    labels: Labels[str] = Labels(2)
    assert [labels.note(name) for name in ("a", "b", "c", "a")] == [None] * 4
    assert ["a" in labels, "b" in labels, "c" in labels] == [True, True, False]


def test_a_name_that_is_asked_for_much_more_takes_the_label_of_the_least() -> None:
    labels: Labels[str] = Labels(2)
    for name in ("a", "b", "b"):
        labels.note(name)
    lost = [labels.note("c") for _ in range(11)]
    assert lost == [None] * 10 + ["a"]  # twice as often as "a", and eight more
    assert ["a" in labels, "b" in labels, "c" in labels] == [False, True, True]


def test_names_without_number_push_nobody_out_and_take_bounded_memory() -> None:
    labels: Labels[str] = Labels(3)
    rest = random.Random(7)
    names = [rest.choice(("a", "b", "c")) for _ in range(3000)] + [f"mixture-{i}" for i in range(20_000)]
    rest.shuffle(names)
    for name in ("a", "b", "c", *names):
        assert labels.note(name) is None
        assert len(labels._counts) <= 24


def test_the_most_asked_for_are_found_among_many_others() -> None:
    labels: Labels[str] = Labels(3)
    rest = random.Random(7)
    for number in range(30_000):
        labels.note(rest.choice(("x", "y", "z")) if rest.random() < 0.3 else f"other-{number}")
    assert all(name in labels for name in "xyz")


def test_the_names_of_last_week_give_way() -> None:
    labels: Labels[str] = Labels(1, fade=100)
    for _ in range(1000):
        labels.note("old")
    asked = 0
    while "new" not in labels:
        labels.note("new")
        asked += 1
    assert asked < 500


def test_a_name_that_is_dropped_leaves_its_place() -> None:
    labels: Labels[str] = Labels(1)
    labels.note("a")
    labels.drop("a")
    labels.note("b")
    assert "b" in labels


def test_without_any_label_there_is_nothing_to_do() -> None:
    labels: Labels[str] = Labels(0)
    assert labels.note("a") is None
    assert "a" not in labels
