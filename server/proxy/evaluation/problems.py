"""What is wrong with a description, all of it at once."""

from collections.abc import Callable
from typing import TypeVar

from loraloom.adapters.errors import AdapterError
from loraloom.server.errors import ServerError
from loraloom.server.proxy.evaluation.errors import InvalidEvaluation

T = TypeVar("T")


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
