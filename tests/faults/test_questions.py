from pathlib import Path

from loraloom.demo.catalog import DemoAdapter
from tests.bench.soak_answers import Case
from tests.faults.questions import mixtures, singles

ADAPTERS = [DemoAdapter(name, Path(name), "", ()) for name in ("date", "sql")]
CASES = {name: [Case(f"a {name}?", f"{name}!", name, {name: f"{name}!"})] for name in ("date", "sql")}


def test_an_answer_has_to_come_from_the_version_that_was_asked_for() -> None:
    asked = {each.model: (each.named, each.expected) for each in singles(CASES, ADAPTERS)}
    assert asked == {
        "date": ("date@1", "date!"),
        "sql": ("sql@1", "sql!"),
        "changing@1": ("changing@1", "date!"),
        "changing@2": ("changing@2", "sql!"),
        "changing": ("changing@2", "sql!"),
        "changing@stable": ("changing@1", "date!"),
    }


def test_a_mixture_is_asked_for_the_task_of_its_first_adapter() -> None:
    (mixed,) = mixtures(CASES, ADAPTERS)
    assert (mixed.model, mixed.named) == ("0.7*date+0.7*sql", "0.7*date@1+0.7*sql@1")
    assert mixed.expected == "date!"
