"""What becomes of a composition."""

from dataclasses import replace

import pytest

from loraloom.adapters.errors import AdapterNotFound, NameTaken, VersionNotFound
from loraloom.adapters.names import Adapter
from loraloom.adapters.store import Store
from loraloom.compose.publication import composition, publish, rank_of
from loraloom.compose.result import Verdict
from tests.compose.conftest import Planned
from tests.tiny_models import MakeAdapter

WEIGHTS = {"a@1": 0.7, "b@1": 0.0, "org/c@1": -0.2}
BETTER, UNDECIDABLE = Verdict("better", 20, ""), Verdict("undecidable", 4, "")


def test_the_expression_is_what_requests_ask_for(plan: Planned) -> None:
    assert str(composition(plan(), WEIGHTS)) == "0.7*a@1+-0.2*org/c@1"
    lorahub = plan(method="lorahub", pool=["a", "b"])
    assert str(composition(lorahub, {"a@1": 0.5, "b@1": 0.25})) == "lorahub:0.5*a@1+0.25*b@1"
    assert composition(plan(), dict.fromkeys(WEIGHTS, 0.0)) is None


def test_its_rank_before_redundancy_is_removed(plan: Planned) -> None:
    assert rank_of(plan(), WEIGHTS) == 6
    assert rank_of(plan(method="lorahub", pool=["a", "b"]), {"a@1": 1.0, "b@1": 1.0}) == 4
    assert rank_of(plan(), dict.fromkeys(WEIGHTS, 0.0)) == 0


def test_what_is_better_is_published_with_where_it_comes_from(plan: Planned, store: Store) -> None:
    made = publish(store, plan(name="blend"), WEIGHTS, BETTER, {"job": "one"}, "ada")
    record = store.resolve(Adapter("blend"))
    assert (made.version, made.reason) == ("blend@1", "published as blend@1")
    assert (made.rank, made.error) == (record.rank, 0) == (6, 0)
    assert record.provenance["composed"] == {"job": "one"}
    assert record.provenance["mixture"] == "0.7*a@1+-0.2*org/c@1"
    assert (record.by, record.base) == ("ada", store.resolve(Adapter("a")).base)


def test_doing_it_again_gives_the_version_that_is_there(plan: Planned, store: Store) -> None:
    for reason in ("published as blend@1", "blend@1 has this content already"):
        made = publish(store, plan(name="blend", publish={"tag": "stable"}), WEIGHTS, BETTER, {})
        assert (made.version, made.reason) == ("blend@1", reason)
    assert store.tags("blend") == {"latest": 1, "stable": 1}


def test_a_job_that_was_killed_after_it_published_says_the_same(plan: Planned, store: Store) -> None:
    made = [publish(store, plan(name="blend"), WEIGHTS, BETTER, {"job": "one"}) for _ in range(2)]
    assert made[0] == made[1]


def test_a_rank_that_is_asked_for(plan: Planned, store: Store) -> None:
    made = publish(store, plan(name="blend", publish={"rank": 2}), WEIGHTS, BETTER, {})
    assert made.rank == store.resolve(Adapter("blend")).rank == 2
    assert 0 < made.error < 1


@pytest.mark.parametrize(
    ("when", "weights", "verdict", "reason"),
    [
        ("never", WEIGHTS, BETTER, "the job says never"),
        ("if_better", WEIGHTS, UNDECIDABLE, "the verdict is undecidable with 4 examples"),
        ("if_better", WEIGHTS, replace(UNDECIDABLE, name="not better"), "the verdict is not better"),
        ("always", dict.fromkeys(WEIGHTS, 0.0), BETTER, "it is the base model itself"),
    ],
)
def test_what_is_not_published(
    plan: Planned, store: Store, when: str, weights: dict[str, float], verdict: Verdict, reason: str
) -> None:
    made = publish(store, plan(name="blend", publish=when), weights, verdict, {})
    assert made.version is None
    assert made.reason.startswith("not published: ")
    assert reason in made.reason
    assert "blend" not in store.names()


def test_always_means_always(plan: Planned, store: Store) -> None:
    assert publish(store, plan(name="blend", publish="always"), WEIGHTS, UNDECIDABLE, {}).version == "blend@1"


def test_a_name_that_is_taken_meanwhile_is_told_and_not_how_it_is_spelled(plan: Planned, store: Store) -> None:
    """Which may be the name of somebody else's."""
    wanted = plan(name="Blend")
    publish(store, plan(name="blend"), WEIGHTS, BETTER, {})
    with pytest.raises(NameTaken, match="'Blend' differs from an existing one only by case: choose another") as told:
        publish(store, wanted, WEIGHTS, BETTER, {})
    assert told.value.existing is None


def test_what_is_not_there_any_more_is_told_without_the_names_of_others(plan: Planned, store: Store) -> None:
    wanted = plan(name="blend")
    publish(store, plan(name="aa"), WEIGHTS, BETTER, {})
    store.remove("a", None, by="ada")
    with pytest.raises(AdapterNotFound, match="Did you mean 'aa'"):
        store.resolve(Adapter("a"))
    with pytest.raises(AdapterNotFound, match="there is no adapter 'a' any more: add it again") as told:
        publish(store, wanted, WEIGHTS, BETTER, {})
    assert (told.value.nearest, "aa" in str(told.value)) == ((), False)


def test_which_versions_are_left_is_told(plan: Planned, store: Store, make_adapter: MakeAdapter) -> None:
    wanted = plan(name="blend")
    store.publish(make_adapter("new", seed=7), "a")
    store.remove("a", 1, by="ada")
    with pytest.raises(VersionNotFound, match="It has 2, latest"):
        publish(store, wanted, WEIGHTS, BETTER, {})
