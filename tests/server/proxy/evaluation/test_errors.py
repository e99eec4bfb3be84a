"""The errors of the evaluation."""

import pytest

from loraloom.adapters.errors import InvalidBase
from loraloom.server.errors import ServerError
from loraloom.server.proxy.evaluation import errors
from loraloom.server.proxy.evaluation.errors import InvalidEvaluation, Problems


@pytest.mark.parametrize(
    ("error", "builtin"), [(errors.InvalidEvaluation, ValueError), (errors.EvaluationFailed, RuntimeError)]
)
def test_each_is_ours_and_a_builtin(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, ServerError)
    assert issubclass(error, builtin)
    assert error.__name__ in (errors.__doc__ or "")


def failing(error: Exception) -> None:
    raise error


def test_every_one_is_told_once() -> None:
    problems = Problems()
    assert problems.note(lambda: 4) == 4
    problems.raise_if_any()
    for error in (InvalidBase("one"), OSError("two"), InvalidBase("one")):
        problems.note(lambda error=error: failing(error))  # type: ignore[misc]
    problems.note(lambda: failing(InvalidBase("three")), "there")
    with pytest.raises(InvalidEvaluation) as caught:
        problems.raise_if_any()
    assert str(caught.value) == "this cannot be evaluated:\n  one\n  two\n  there: three"


def test_a_mistake_of_our_own_is_none_of_the_users() -> None:
    with pytest.raises(KeyError):
        Problems().note(lambda: failing(KeyError("x")))
