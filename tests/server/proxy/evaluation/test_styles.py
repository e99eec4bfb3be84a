"""How arms look."""

from loraloom.server.proxy.evaluation.arms import arms_of
from loraloom.server.proxy.evaluation.styles import HEADLINE, styles
from tests.server.proxy.evaluation.described import plan_of


def test_no_two_of_the_usual_arms_look_alike() -> None:
    looks = styles([arm.key for arm in arms_of(plan_of().spec)])
    assert len(set(looks.values())) == len(looks) == 8
    assert looks["proxy~1"] == HEADLINE
    assert looks["proxy~0.5"].marker == "v"
    assert looks["proxy~1.5"].colour != HEADLINE.colour
