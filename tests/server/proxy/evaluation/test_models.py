"""Where models are."""

from pathlib import Path

import pytest

from loraloom.server.proxy.evaluation.errors import InvalidEvaluation
from loraloom.server.proxy.evaluation.models import locate


def test_a_model_of_the_users_stays_what_it_is() -> None:
    assert locate("org/model", print) == "org/model"


def test_the_demos_model(demo_model: Path) -> None:
    assert locate("demo:large", print) == str(demo_model)


def test_a_model_that_the_demo_has_not() -> None:
    with pytest.raises(InvalidEvaluation, match="it has demo:large, demo:small"):
        locate("demo:huge", print)
