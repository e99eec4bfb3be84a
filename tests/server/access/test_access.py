"""What whoever asks may do."""

import pytest

from loraloom.server.access.access import ANYONE, Access, Quota, Role
from loraloom.server.access.patterns import Patterns

TEAM = Access("team", Role.PUBLISH, Patterns.parse("team/*,public/*"), Patterns.parse("team/*"), quota=Quota(rpm=5))


def test_a_role_includes_those_before_it_but_only_administrators_and_monitors_read_metrics() -> None:
    having = {role: {other for other in Role if Access("k", role).has(other)} for role in Role}
    assert having == {
        Role.MONITOR: {Role.MONITOR},
        Role.INFER: {Role.INFER},
        Role.PUBLISH: {Role.INFER, Role.PUBLISH},
        Role.ADMIN: set(Role),
    }


@pytest.mark.parametrize(
    ("name", "sees", "publishes"), [("team/x", True, True), ("public/x", True, False), ("other/x", False, False)]
)
def test_a_key_publishes_under_fewer_names_than_it_sees(name: str, sees: bool, publishes: bool) -> None:
    assert (TEAM.sees(name), TEAM.may_publish(name)) == (sees, publishes)


def test_what_a_key_may_publish_it_sees_and_a_key_for_inference_publishes_nothing() -> None:
    publisher = Access("k", Role.PUBLISH, Patterns(()), Patterns.parse("a/*"))
    reader = Access("k", Role.INFER, Patterns(()), Patterns.parse("a/*"))
    assert publisher.sees("a/x")
    assert not reader.sees("a/x")
    assert not reader.may_publish("a/x")


def test_a_job_may_use_its_own_adapters_only_those_that_its_owner_sees_and_comes_last() -> None:
    job = TEAM.for_a_job(["team/x", "public/y", "other/z"])
    assert [name for name in ("team/x", "public/y", "other/z", "team/other") if job.sees(name)] == [
        "team/x",
        "public/y",
    ]
    assert job.background
    assert not job.has(Role.PUBLISH)
    assert not job.may_publish("team/x")
    assert (job.key, job.quota) == (TEAM.key, TEAM.quota)


def test_without_keys_everybody_may_do_everything() -> None:
    assert ANYONE.all
    assert all(ANYONE.has(role) for role in Role)
    assert ANYONE.may_publish("a/x")
