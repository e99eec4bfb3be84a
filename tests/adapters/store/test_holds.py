"""Claims and removals as objects, where there are no locks."""

import threading
from pathlib import Path

import pytest

from loraloom.adapters.errors import StoreError
from loraloom.adapters.store.holds import CLAIM_S, REMOVAL_S, Holds
from loraloom.adapters.store.remote import RemoteObjects

ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture
def objects(tmp_path: Path) -> RemoteObjects:
    return RemoteObjects(f"memory://{tmp_path.name}", tmp_path / "cache")


class Time:
    """A clock that stands."""

    now = 1e9

    def __call__(self) -> float:
        return self.now


def test_what_is_claimed_is_not_removable(objects: RemoteObjects) -> None:
    with Holds(objects).kept((ONE, ONE)), Holds(objects).removable((ONE, TWO)) as free:
        assert free == {TWO}
    with Holds(objects).removable((ONE, TWO)) as free:
        assert free == {ONE, TWO}
    objects.refresh("holds")
    assert objects.list("holds") == []


def test_a_publisher_waits_for_the_end_of_a_removal(objects: RemoteObjects) -> None:
    order: list[str] = []

    def publish() -> None:
        with Holds(objects).kept((ONE,)):
            order.append("publish")

    publisher = threading.Thread(target=publish)
    with Holds(objects).removable((ONE,)) as free:
        assert free == {ONE}
        publisher.start()
        publisher.join(0.2)
        order.append("remove")
    publisher.join()
    assert order == ["remove", "publish"]


def test_a_publisher_does_not_wait_without_end(objects: RemoteObjects) -> None:
    with (
        Holds(objects).removable((ONE,)),
        pytest.raises(StoreError, match="try again"),
        Holds(objects, patience=0).kept((ONE,)),
    ):
        raise AssertionError("the removal goes on")
    with Holds(objects, patience=0).kept((ONE,)):
        pass


def test_what_a_killed_process_holds_ends_by_its_age(objects: RemoteObjects) -> None:
    clock = Time()
    dead = [Holds(objects, clock).kept((ONE,)), Holds(objects, clock).removable((TWO,))]
    for each in dead:
        each.__enter__()
    clock.now += REMOVAL_S - 1
    with pytest.raises(StoreError), Holds(objects, clock, patience=0).kept((TWO,)):
        pass
    clock.now += 1
    with Holds(objects, clock, patience=0).kept((TWO,)):
        pass
    assert [path.split("/")[1] for path in Holds(objects, clock).left_over()] == [TWO]
    clock.now += CLAIM_S - REMOVAL_S - 1
    with Holds(objects, clock).removable((ONE,)) as free:
        assert free == set()
    clock.now += 1
    with Holds(objects, clock).removable((ONE,)) as free:
        assert free == {ONE}
    objects.refresh("holds")
    left_over = Holds(objects, clock).left_over()
    assert sorted(path.split("/")[1] for path in left_over) == [ONE, TWO]
    for path in left_over:
        objects.remove(path)
    objects.refresh("holds")
    assert objects.list("holds") == []
