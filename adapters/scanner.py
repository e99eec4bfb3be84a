"""The words of the selection grammar, read from left to right with the position kept for errors."""

import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from loraloom.adapters.errors import InvalidName

MAX_TEXT = 4096
"""Characters in the longest selection."""

_MAX_PART = 64
_MAX_VERSION_DIGITS = 9
_RESERVED = frozenset({"versions", "tags"})
# Each pattern reads a character class, or classes in a fixed order, so that matching is linear in the text.
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HEX = re.compile(r"[0-9a-f]*")
_KEY = re.compile(r"[a-z]+")
_METHOD = re.compile(_PART.pattern + r"(?=[(:])")
_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]-?[0-9]+)?")
_WEIGHT = re.compile(_NUMBER.pattern + r"(?=\*)")

T = TypeVar("T")


def number_text(value: float) -> str:
    """The shortest text that reads back as `value`; it has no "+", which separates terms, and zero has no sign."""
    if value == value // 1 and abs(value) < 1e16:
        return str(int(value))
    return repr(float(value)).replace("e+", "e")


class Scanner:
    """Reads one text. Each method consumes what it names, or raises `InvalidName` where it does not fit."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        if len(text) > MAX_TEXT:
            raise InvalidName(text, MAX_TEXT, f"a selection has at most {MAX_TEXT} characters")

    def whole(self, read: Callable[["Scanner"], T]) -> T:
        """What `read` makes of the text, which must end there."""
        value = read(self)
        if self.position < len(self.text):
            self.fail(self._surplus())
        return value

    def fail(self, reason: str, position: int | None = None) -> NoReturn:
        raise InvalidName(self.text, self.position if position is None else position, reason)

    def accept(self, symbol: str) -> bool:
        """Consume `symbol` if it comes next."""
        found = self.text.startswith(symbol, self.position)
        self.position += len(symbol) if found else 0
        return found

    def accept_plus(self) -> bool:
        """Consume "+" and the spaces around it if it comes next."""
        rest = self.position
        while self.text.startswith(" ", rest):
            rest += 1
        if not self.text.startswith("+", rest):
            return False
        self.position = rest + 1
        while self.accept(" "):
            pass
        return True

    def part(self, what: str) -> str:
        text = self._take(_PART)
        if text is None:
            self.fail(f"{what} starts with one of A-Z, a-z, 0-9")
        if len(text) > _MAX_PART:
            self.fail(f"{what} has at most {_MAX_PART} characters", self.position - len(text) + _MAX_PART)
        return text

    def name(self) -> str:
        first = self.part("a name")
        if not self.accept("/"):
            return first
        start = self.position
        second = self.part("the second part of a name")
        if second.lower() in _RESERVED:
            self.fail(f"the second part of a name cannot be {second!r}", start)
        return f"{first}/{second}"

    def tag(self) -> str:
        start = self.position
        text = self.part("a tag")
        if text.isdigit():
            self.fail("a tag has more than digits, which are a version number", start)
        return text

    def version_number(self) -> int | None:
        """A version number, or None (and nothing consumed) if digits alone are not what comes next."""
        start = self.position
        text = self._take(_PART)
        if text is None or not text.isdigit():
            self.position = start
            return None
        if text.startswith("0"):
            self.fail("version numbers start at 1 and have no leading zeros", start)
        if len(text) > _MAX_VERSION_DIGITS:
            self.fail(f"a version number has at most {_MAX_VERSION_DIGITS} digits", start)
        return int(text)

    def digest_prefix(self) -> str:
        text = self._take(_HEX) or ""
        if not 8 <= len(text) <= 64:
            self.fail("sha256: is followed by 8 to 64 of the digits 0-9 and a-f")
        return text

    def at_method(self) -> bool:
        """Whether a word before "(" or ":" comes next."""
        return _METHOD.match(self.text, self.position) is not None

    def key(self) -> str:
        return self._take(_KEY) or self.fail("a parameter is written key=number")

    def weight(self) -> float | None:
        """The number before a "*", which is consumed too, if the text goes on with one."""
        text = self._take(_WEIGHT)
        if text is None:
            return None
        self.position -= len(text)
        number = self.number()
        self.accept("*")
        return number

    def number(self) -> float:
        start = self.position
        text = self._take(_NUMBER)
        if text is None:
            self.fail("a number was expected, such as 0.5 or -1")
        value = float(text)
        if value in (float("inf"), float("-inf")):
            self.fail("a number is finite", start)
        return value

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self.text, self.position)
        if match is None:
            return None
        self.position = match.end()
        return match.group()

    def _surplus(self) -> str:
        symbol = self.text[self.position]
        if symbol == " ":
            return "spaces are allowed around '+' only (and in a URL '+' is written %2B)"
        if symbol == "/":
            return "a name has at most two parts"
        return f"{symbol!r} cannot follow here"
