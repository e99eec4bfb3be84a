"""The report as one HTML file that opens without a network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from loraloom.compose.report import provenance
from loraloom.compose.report.bars import MOST, by_size, draw_bars
from loraloom.compose.report.curve import draw_curve
from loraloom.compose.report.ink import as_svg, chart, drawing
from loraloom.compose.report.remark import format_remark
from loraloom.compose.report.systems import NAMES, SYSTEMS, Unit, draw_systems, unit_of
from loraloom.compose.result import Result, Sample, System, VerdictName
from loraloom.compose.trials import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLIP = 320
"""Characters of a text that are shown before the rest is folded away."""

MARKS: Mapping[VerdictName, str] = MappingProxyType({"better": "✓", "not better": "✕", "undecidable": "?"})
"""So that a verdict is not told by its colour alone."""


@dataclass(frozen=True, slots=True)
class SystemRow:
    """A system in the table; all but its name as text."""

    system: System
    name: str
    detail: str
    score: str = ""
    interval: str = ""
    gain: str = ""
    gain_interval: str = ""
    p: str = ""
    loss: str = ""
    exact: str = ""
    prompt_tokens: str = ""


@dataclass(frozen=True, slots=True)
class Clipped:
    """A text of any length: its beginning, and the whole where that is not all."""

    start: str
    whole: str

    @property
    def is_long(self) -> bool:
        return len(self.whole) > len(self.start)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a system answers, and whether that is right but for blanks around it."""

    name: str
    text: Clipped
    right: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample as it is shown."""

    prompt: Clipped
    expected: Clipped
    answers: tuple[Answer, ...]


def page(result: Result, trials: Sequence[Trial]) -> str:
    """The whole page.

    Args:
        result: of the job.
        trials: of all its searches, at least one of them of fold 0.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html").render(_view(result, trials))


def clipped(text: str) -> Clipped:
    """A text as it is shown."""
    return Clipped(text if len(text) <= CLIP else text[: CLIP // 2], text)


def system_row(result: Result, system: System) -> SystemRow:
    """What the table says of a system."""
    held_out, unit = result.held_out.get(system), unit_of(result.objective)
    if held_out is None:
        return SystemRow(system, NAMES[system], str(result.provenance.get(system, "not measured")))
    return SystemRow(
        system,
        NAMES[system],
        held_out.detail,
        score=unit.text(held_out.score),
        interval=_range(unit.text, held_out.low, held_out.high),
        **_gain(result, system, unit),
        loss=unit_of("loss").text(held_out.loss),
        exact=unit_of("exact_match").text(held_out.exact),
        prompt_tokens=f"{held_out.prompt_tokens:.0f}",
    )


def _gain(result: Result, system: System, unit: Unit) -> dict[str, str]:
    if system not in result.comparisons:
        return {}
    comparison = result.comparisons[system]
    ends = _range(unit.gain, comparison.low, comparison.high)
    p = "< 0.001" if comparison.p < 0.001 else f"{comparison.p:.3f}"
    return {"gain": unit.gain(comparison.gain), "gain_interval": ends, "p": p}


def _range(text: Callable[[float], str], low: float, high: float) -> str:
    return f"{text(low)} to {text(high)}"


def shown(sample: Sample) -> Shown:
    """A sample with its answers in the order of the report, those of other systems last."""
    order = [*SYSTEMS, *sample.outputs]
    systems = [system for system in dict.fromkeys(order) if system in sample.outputs]
    answers = (
        Answer(
            NAMES.get(system, system),  # type: ignore[call-overload]
            clipped(sample.outputs[system]),
            sample.outputs[system].strip() == sample.expected.strip(),
        )
        for system in systems
    )
    return Shown(clipped(sample.prompt), clipped(sample.expected), tuple(answers))


def _view(result: Result, trials: Sequence[Trial]) -> dict[str, Any]:
    """What the template is filled with."""
    return {
        "result": result,
        "headline": str(result.verdict).capitalize(),
        "mark": MARKS[result.verdict.name],
        "model": clipped(f'"model": "{result.published or result.chosen.expression}"'),
        "expression": clipped(result.chosen.expression),
        "remark": format_remark(result),
        "trials": sum(trial.fold == 0 for trial in trials),
        "folds": len({trial.fold for trial in trials if trial.fold}),
        "curve": _svg("curve", 8.6, 3.5, lambda axes: draw_curve(axes, trials, result.chosen, result.objective)),
        "bars": _svg("bars", 8.6, _bars_height(result), lambda axes: draw_bars(axes, result.chosen.weights)),
        "systems": _svg("systems", 8.6, 2.7, lambda axes: draw_systems(axes, result)),
        "unit": unit_of(result.objective),
        "rows": [system_row(result, system) for system in SYSTEMS],
        "weights": by_size(result.chosen.weights),
        "samples": [shown(sample) for sample in result.samples],
        "facts": provenance.rows(result.provenance),
        "records": provenance.records(result.provenance),
        "columns": provenance.columns,
        "text_of": provenance.text_of,
    }


def _bars_height(result: Result) -> float:
    return 0.75 + 0.24 * min(len(result.chosen.weights), MOST + 1)


def _svg(name: str, width: float, height: float, draw: "Callable[[Axes], None]") -> object:
    """A chart that the template takes as it is, since it holds names of adapters only."""
    from markupsafe import Markup

    with drawing(name):
        figure, axes = chart(width, height)
        draw(axes)
        return Markup(as_svg(figure, name))
