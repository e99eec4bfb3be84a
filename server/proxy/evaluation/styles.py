"""How each arm looks in the picture: a colour and a sign, so that it can be read without its colours too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loraloom.server.proxy.evaluation.arms import LARGE, LARGE_TUNED, SHOTS, SMALL, SMALL_TUNED, headline


@dataclass(frozen=True, slots=True)
class Style:
    """The colour of an arm, its sign in matplotlib's letters, and whether the sign is filled."""

    colour: str
    marker: str
    filled: bool = True


_FIXED: Mapping[str, Style] = {
    LARGE: Style("#4d5463", "o"),
    SHOTS: Style("#4d5463", "o", filled=False),
    SMALL: Style("#56b4e9", "s", filled=False),
    SMALL_TUNED: Style("#56b4e9", "s"),
    LARGE_TUNED: Style("#009e73", "D"),
}
HEADLINE = Style("#d55e00", "^")
_WEAKER, _STRONGER = Style("#e69f00", "v", filled=False), Style("#8f2d56", "^", filled=False)
"""Colours that those who confuse red and green tell apart too, after Okabe and Ito."""


def styles(keys: Sequence[str]) -> Mapping[str, Style]:
    """The style of each arm, given in the order of the report: strengths ascend."""
    found: dict[str, Style] = {}
    proxy = _WEAKER
    for key in keys:
        if key == headline():
            found[key], proxy = HEADLINE, _STRONGER
        else:
            found[key] = _FIXED.get(key, proxy)
    return found
