"""The picture."""

import io
from collections.abc import Callable

import pytest

from loraloom.server.proxy.evaluation.arms import arms_of
from loraloom.server.proxy.evaluation.outcome import Measured
from loraloom.server.proxy.evaluation.picture import DPI, HEIGHT, WIDTH, picture
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


@pytest.mark.parametrize("result", [lambda: found(plan_of(MANY, 16)), large_only, without_gap])
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
