"""Which names of adapters a key is for: `team-a/*,public/*`."""

import re
from dataclasses import dataclass
from functools import cached_property

from loraloom.server.errors import InvalidSettings

_PART = r"[A-Za-z0-9*][A-Za-z0-9._*-]{0,63}"
_PATTERN = re.compile(rf"\*|{_PART}(/{_PART})?")


@dataclass(frozen=True)
class Patterns:
    """Names by pattern; without any, no name matches.

    Attributes:
        texts: each is a name in which `*` stands for any characters but "/", or `*` alone for every name.
    """

    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        for text in self.texts:
            if not _PATTERN.fullmatch(text):
                raise InvalidSettings(
                    f"{text[:200]!r} is no pattern of adapter names: write a name such as team-a/sql, one with `*` for "
                    "any characters within a part, such as team-a/*, or `*` alone for every name"
                )

    @classmethod
    def parse(cls, text: str) -> "Patterns":
        """Patterns with commas between them; raises `InvalidSettings`."""
        return cls(tuple(part.strip() for part in text.split(",") if part.strip()))

    def __str__(self) -> str:
        return ",".join(self.texts)

    def match(self, name: str) -> bool:
        """Whether a name matches one of the patterns; upper and lower case differ, as in names."""
        return self._expression.fullmatch(name) is not None

    def match_folded(self, name: str) -> bool:
        """The same for a name in lower case, which has lost how it is spelled: more names match than do."""
        return self._folded.fullmatch(name) is not None

    @cached_property
    def _folded(self) -> re.Pattern[str]:
        return re.compile(self._expression.pattern, re.IGNORECASE)

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile("|".join(map(_as_expression, self.texts)) or r"(?!)")


def _as_expression(text: str) -> str:
    return ".*" if text == "*" else "[^/]*".join(map(re.escape, text.split("*")))


EVERYTHING = Patterns(("*",))
"""Every name."""
