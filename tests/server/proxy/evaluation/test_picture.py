"""The picture."""

import io
from collections.abc import Callable
from dataclasses import replace

import pytest

from loraloom.server.proxy.evaluation.arms import arms_of
from loraloom.server.proxy.evaluation.outcome import Measured
from loraloom.server.proxy.evaluation.picture import DPI, HEADLINE, HEIGHT, WIDTH, picture, styles
from loraloom.server.proxy.evaluation.result import Result
from tests.server.proxy.evaluation.described import CHANCE, found, measured_of, plan_of

MANY = tuple(f"a-task-with-a-long-name-{number}" for number in range(12))


def large_only() -> Result:
    plan = plan_of(("date",), large="日付/model", speed_rounds=0)
    arms = [arm for arm in arms_of(plan.spec) if arm.server == "large"]
    return found(plan, Measured(measured_of(plan, arms).rounds), complete=False)


def without_gap() -> Result:
    plan = plan_of()
    return found(plan, measured_of(plan, chances={**CHANCE, "large": 0.9}))


def partly_tuned() -> Result:
    plan, without = plan_of(), plan_of(large_adapter=None)
    return found(replace(plan, tasks=(plan.tasks[0], without.tasks[1])))


@pytest.mark.parametrize("result", [lambda: found(plan_of(MANY, 16)), large_only, without_gap, partly_tuned])
def test_it_can_be_read_whatever_was_found(result: Callable[[], Result]) -> None:
    from PIL import Image

    with Image.open(io.BytesIO(picture(result()))) as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == (WIDTH * DPI, HEIGHT * DPI)


def test_it_shows_what_was_found() -> None:
    plan = plan_of()
    other = measured_of(plan, chances={**CHANCE, "proxy~1": 0.2})
    assert picture(found(plan)) != picture(found(plan, other))


def test_no_two_of_the_usual_arms_look_alike() -> None:
    looks = styles([arm.key for arm in arms_of(plan_of().spec)])
    assert len(set(looks.values())) == len(looks) == 8
    assert looks["proxy~1"] == HEADLINE
    assert looks["proxy~0.5"].marker == "v"
    assert looks["proxy~1.5"].colour != HEADLINE.colour
