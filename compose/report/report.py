"""Writing the report of a job."""

import os
from collections.abc import Sequence
from pathlib import Path

from loraloom.compose.report.page import page
from loraloom.compose.report.picture import picture
from loraloom.compose.result import Result
from loraloom.compose.trials import Trial


def write_report(result: Result, trials: Sequence[Trial], folder: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.png`, each in one step and the same bytes every time.

    Args:
        result: of the job.
        trials: of all its searches, at least one of them of fold 0.
        folder: where to; it is there.

    Returns:
        Both paths.

    Raises:
        OSError: the folder cannot be written.
    """
    html, png = folder / "report.html", folder / "report.png"
    _replace(html, page(result, trials).encode())
    _replace(png, picture(result, trials))
    return html, png


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.part")
    aside.write_bytes(data)
    os.replace(aside, path)
