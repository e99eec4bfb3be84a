"""The table of what conversions lose."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_COLUMNS = (
    "kind",
    "LoRA rank",
    "update lost",
    "KL, probe text",
    "(base)",
    "KL, task text",
    "(base)",
    "top-1, task text",
    "right: base, original, converted",
)


@dataclass(frozen=True)
class Row:
    """One conversion.

    Attributes:
        label: the kind.
        rank: the largest of any module.
        chosen: the rank was asked for, and not left to the default.
        exact: nothing was lost.
        relative_error: of the update, in the Frobenius norm.
        kl: KL(original || converted) on the built-in text in nats; None for plain LoRA.
        base_kl: KL(original || base) there.
        task_kl: KL(original || converted) on the task's own text.
        task_base_kl: KL(original || base) there.
        task_top1: the share of positions there with the same most likely token.
        prompts: held-out prompts.
        right_base: how many of them the base answers right; likewise the others.
        seconds: the conversion took, its measurement included.
    """

    label: str
    rank: int
    chosen: bool
    exact: bool
    relative_error: float
    kl: float | None
    base_kl: float | None
    task_kl: float
    task_base_kl: float
    task_top1: float
    prompts: int
    right_base: int
    right_original: int
    right_converted: int
    seconds: int


def read_rows(file: Path) -> list[Row]:
    """The rows of a file of lines; of equal conversions, the last one."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = Row(**json.loads(line))
        found[row.label, row.rank if row.chosen else None] = row
    return list(found.values())


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    return "\n".join((_joined(_COLUMNS), "|---" * len(_COLUMNS) + "|", *map(_line, rows)))


def _line(row: Row) -> str:
    cells = (
        row.label,
        f"{row.rank}" + ("" if row.exact or row.chosen else " (default)"),
        "nothing" if row.exact else f"{row.relative_error:.0%}",
        _nats(row.kl),
        _nats(row.base_kl),
        _nats(row.task_kl),
        _nats(row.task_base_kl),
        f"{row.task_top1:.1%}",
        f"{row.right_base}, {row.right_original}, {row.right_converted} of {row.prompts}",
    )
    return _joined(cells)


def _joined(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _nats(value: float | None) -> str:
    if value is None:
        return "–"
    return "0" if value < 1e-6 else f"{value:.2g}"
