"""Where the models of a comparison are."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loraloom.demo.model import DemoModelError, prepare
from loraloom.demo.small import prepare_small
from loraloom.server.proxy.evaluation.errors import InvalidEvaluation
from loraloom.server.proxy.evaluation.rounds import Tell

_DEMO: dict[str, Callable[[Tell], Path]] = {
    "demo:large": lambda tell: prepare(progress=tell),
    "demo:small": lambda tell: prepare_small(progress=tell),
}
"""The demo's models by the names that a description has for them; what makes them, where they are not there yet."""


@dataclass(frozen=True)
class Models:
    """Folder or Hugging Face id of each model; the expert may be None."""

    large: str
    small: str
    expert: str | None = None


def locate(model: str, tell: Tell) -> str:
    """A model's folder or Hugging Face id.

    Args:
        model: as described.
        tell: is told of every step that takes seconds.

    Raises:
        InvalidEvaluation: the demo has no such model, or it cannot be made here.
    """
    if not model.startswith("demo:"):
        return model
    if model not in _DEMO:
        raise InvalidEvaluation(f"the demo has no model {model!r}; it has {', '.join(_DEMO)}")
    try:
        return str(_DEMO[model](tell))
    except DemoModelError as error:
        raise InvalidEvaluation(str(error)) from error
