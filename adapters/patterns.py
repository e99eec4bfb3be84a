"""Patterns of module paths in an adapter's configuration: regular expressions, written by whoever made the adapter.

peft matches them with `re`, and sets no limit: one of them can take for ever, or all memory. Here they are what can
name modules, and have a deadline together.
"""

import math
import re
import time
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from loraloom.adapters.errors import InvalidAdapter

MAX_PATTERN = 1000
"""Characters in the longest pattern."""
MAX_REPEATS = 1000
"""The largest product of a pattern's counts, as of {3} and {1,20}: each is a copy of what it counts."""

# Groups of `re`; no recursion and fuzzy matching, which only `regex` knows, and no flags for all, after peft's prefix.
_SYNTAX = re.compile(
    r"(?:[^({]|\((?!\?)|\(\?(?:[ims-]*:|[=!]|<[=!]|P<\w+>|P=\w+\))|\{\d{1,4}(?:,\d{0,4})?\}|\{,\d{1,4}\})*"
)
_COUNT = re.compile(r"\{(\d*),?(\d*)\}")

T = TypeVar("T")


class Patterns(Generic[T]):
    """Values by pattern, as peft looks them up: the first pattern counts that matches a path, or a tail after a dot."""

    def __init__(self, values: Mapping[str, T], deadline: float) -> None:
        """
        Args:
            values: by pattern.
            deadline: of all look-ups together, in seconds of `time.monotonic`.
        """
        self._values = values
        self._deadline = deadline
        self._compiled: dict[str, Any] = {}

    def get(self, path: str, default: T) -> T:
        """The value for a module.

        Raises:
            InvalidAdapter: a pattern is none, or the deadline has passed.
        """
        return next((value for pattern, value in self._values.items() if self._matches(pattern, path)), default)

    def _matches(self, pattern: str, path: str) -> bool:
        if pattern not in self._compiled:
            self._compiled[pattern] = compiled(pattern, tail=True)
        return matches(self._compiled[pattern], path, self._deadline)


def compiled(pattern: str, *, tail: bool = False) -> Any:
    """A pattern, compiled to match a whole path, or with `tail` also what follows a dot in it.

    Raises:
        InvalidAdapter: it is no regular expression, or none of those that are allowed.
    """
    import regex  # type: ignore[import-untyped]  # re has no timeout

    _check(pattern)
    try:
        return regex.compile(rf"(.*\.)?({pattern})$" if tail else rf"(?:{pattern})\Z")
    except (regex.error, ValueError, RecursionError, OverflowError) as error:
        raise InvalidAdapter(f"adapter_config.json: the pattern {pattern[:100]!r} is no regular expression") from error


def matches(compiled: Any, path: str, deadline: float) -> bool:
    """Whether a compiled pattern matches a path; raises `InvalidAdapter` where the deadline passes before."""
    try:
        if (left := deadline - time.monotonic()) > 0:
            return compiled.match(path, timeout=left) is not None
    except TimeoutError:
        pass
    raise InvalidAdapter(f"adapter_config.json: the pattern {compiled.pattern[:100]!r} takes too long to match")


def _check(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN:
        raise InvalidAdapter(
            f"adapter_config.json: the pattern {pattern[:100]!r}… has more than {MAX_PATTERN} characters"
        )
    if not _SYNTAX.fullmatch(pattern):
        raise InvalidAdapter(
            f"adapter_config.json: the pattern {pattern[:100]!r} is no regular expression, or has more in it than "
            "names of modules need: write them out"
        )
    counts = (max(int(low or 1), int(high or 1), 1) for low, high in _COUNT.findall(pattern))
    if math.prod(counts) > MAX_REPEATS:
        raise InvalidAdapter(
            f"adapter_config.json: the pattern {pattern[:100]!r} repeats more than {MAX_REPEATS} times: write names out"
        )
