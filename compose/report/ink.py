"""Colours of the charts, and how a chart becomes SVG that takes its colours from the page around it."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2430"
MUTED = "#687080"
LINE = "#d8dce3"
GOOD = "#0072b2"
BAD = "#c8500a"
"""Blue and vermilion that those who confuse red and green tell apart too, after Okabe and Ito
(2008, https://jfly.uni-koeln.de/color/)."""

_VARIABLES = MappingProxyType({INK: "--ink", MUTED: "--muted", LINE: "--line", GOOD: "--good", BAD: "--bad"})

LONGEST_NAME = 30


@contextmanager
def drawing(salt: str) -> Iterator[None]:
    """Settings under which charts are drawn and saved, whatever the user's own are.

    Args:
        salt: makes the ids in an SVG its own, and the same every time.
    """
    import matplotlib.style

    settings = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "text.color": INK,
        "text.parse_math": False,
        "axes.edgecolor": LINE,
        "axes.labelcolor": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": True,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
    }
    with matplotlib.style.context(["default", settings]):
        yield


def chart(width: float, height: float) -> "tuple[Figure, Axes]":
    """A new figure of one chart, in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def as_svg(figure: "Figure", name: str) -> str:
    """The figure as an SVG element for HTML: no declarations, ids that start with `name`, colours as CSS variables."""
    written = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(written, format="svg", transparent=True, metadata=metadata)
    text = written.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text


def short(name: str) -> str:
    """A name that fits beside a chart: the middle of a long one left out."""
    if len(name) <= LONGEST_NAME:
        return name
    kept = LONGEST_NAME - 1
    return f"{name[: kept - kept // 2]}\N{HORIZONTAL ELLIPSIS}{name[-(kept // 2) :]}"


def plain(text: str) -> str:
    """Text that the chart's font has signs for; a question mark for any other."""
    return "".join(each if each.isascii() or each in _SIGNS else "?" for each in text)


_SIGNS = frozenset("\N{HORIZONTAL ELLIPSIS}\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}\N{MULTIPLICATION SIGN}")
