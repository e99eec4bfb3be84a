"""The errors of the evaluation."""

import pytest

from loraloom.server.errors import ServerError
from loraloom.server.proxy.evaluation import errors


@pytest.mark.parametrize(
    ("error", "builtin"), [(errors.InvalidEvaluation, ValueError), (errors.EvaluationFailed, RuntimeError)]
)
def test_each_is_ours_and_a_builtin(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, ServerError)
    assert issubclass(error, builtin)
    assert error.__name__ in (errors.__doc__ or "")
