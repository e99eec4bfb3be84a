"""Every error that the evaluation raises, and how several are told at once.

    ServerError
    ├── InvalidEvaluation  (ValueError)    the description does not fit, or a file that it names
    └── EvaluationFailed   (RuntimeError)  a server did not start, or did not answer

Each is also a builtin error, so that callers may catch either. Every message says what to do next.
"""

from collections.abc import Callable
from typing import TypeVar

from loraloom.adapters.errors import AdapterError
from loraloom.server.errors import ServerError

T = TypeVar("T")


class InvalidEvaluation(ServerError, ValueError):
    """The description does not fit, or a file that it names."""


class EvaluationFailed(ServerError, RuntimeError):
    """A server did not start, or did not answer; what the servers before it gave is kept."""


class Problems:
    """Collects the errors of several checks."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def note(self, check: Callable[[], T], where: str = "") -> T | None:
        """What `check` returns; None where it raises, which is noted, with `where` in front."""
        try:
            return check()
        except (AdapterError, ServerError, OSError) as error:
            self._found.append(f"{where}: {error}" if where else str(error))
            return None

    def raise_if_any(self) -> None:
        """Raise where something was noted.

        Raises:
            InvalidEvaluation: with everything, a line each.
        """
        if self._found:
            raise InvalidEvaluation("\n  ".join(["this cannot be evaluated:", *dict.fromkeys(self._found)]))
