"""A comparison as it will be done: everything that can be refused is refused here, before an engine is started."""

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from loraloom.adapters.base import BaseFingerprint, check_fits, fingerprint
from loraloom.adapters.manifest import read_manifest
from loraloom.server.proxy.evaluation.errors import InvalidEvaluation
from loraloom.server.proxy.evaluation.models import Tell, locate
from loraloom.server.proxy.evaluation.problems import Problems
from loraloom.server.proxy.evaluation.spec import EvaluationSpec
from loraloom.server.proxy.evaluation.task import Task, read_task
from loraloom.server.proxy.fitting.fit import Fit, check_fit

TEMPLATE_FLAG = "--chat-template"
_NEEDED = ("httpx", "matplotlib")


@dataclass(frozen=True)
class Models:
    """Folder or Hugging Face id of each model; the expert may be None."""

    large: str
    small: str
    expert: str | None = None


@dataclass(frozen=True)
class Plan:
    """What is done.

    Attributes:
        spec: as described.
        models: where they are.
        tasks: with their files read.
        template: the large model's chat template, by which every model is asked; None where `spec.vllm` names one.
        notes: what is good to know of the models.
    """

    spec: EvaluationSpec
    models: Models
    tasks: tuple[Task, ...]
    template: str | None
    notes: tuple[str, ...] = ()


def planned(spec: EvaluationSpec, tell: Tell) -> Plan:
    """What will be done.

    Args:
        spec: as described.
        tell: is told of steps that take seconds.

    Raises:
        InvalidEvaluation: with everything that is missing or does not fit, a line each.
    """
    problems = Problems()
    problems.note(_check_installed)
    tasks = [problems.note(partial(read_task, each, spec.shots), each.name) for each in spec.tasks]
    models = problems.note(partial(_located, spec, tell))
    fit = None if models is None else problems.note(partial(_fit, models))
    template = None if fit is None else problems.note(partial(_template, fit, spec))
    if models is not None:
        _check_adapters(spec, models, problems)
    problems.raise_if_any()
    assert models is not None
    assert fit is not None
    return Plan(spec, models, tuple(filter(None, tasks)), template, fit.notes)


def _check_installed() -> None:
    """What is needed hours later, too."""
    if lacking := [name for name in _NEEDED if find_spec(name) is None]:
        raise InvalidEvaluation(f"{', '.join(lacking)} is not installed: `pip install 'loraloom[compose]'`")


def _located(spec: EvaluationSpec, tell: Tell) -> Models:
    expert = None if spec.expert is None else locate(spec.expert, tell)
    return Models(locate(spec.large, tell), locate(spec.small, tell), expert)


def _fit(models: Models) -> Fit:
    fit = check_fit(models.large, models.small, models.expert)
    fit.raise_if_refused()
    return fit


def _template(fit: Fit, spec: EvaluationSpec) -> str | None:
    """The large model's chat template, unless the user gives another one."""
    if any(word == TEMPLATE_FLAG or word.startswith(f"{TEMPLATE_FLAG}=") for word in spec.vllm):
        return None
    if fit.large.tokens.chat_template is None:
        raise InvalidEvaluation(f"{fit.large.name} has no chat template: name one as `vllm: [{TEMPLATE_FLAG}, FILE]`")
    return fit.large.tokens.chat_template


def _check_adapters(spec: EvaluationSpec, models: Models, problems: Problems) -> None:
    for kind, model in (("small_adapter", models.small), ("large_adapter", models.large)):
        folders = {task.name: folder for task in spec.tasks if (folder := getattr(task, kind)) is not None}
        base = problems.note(partial(fingerprint, model)) if folders else None
        for name, folder in folders.items():
            problems.note(partial(_check_adapter, folder, base), f"{name}, {kind} {folder}")


def _check_adapter(folder: Path, base: BaseFingerprint | None) -> None:
    if not folder.is_dir():
        raise InvalidEvaluation("there is no such folder: train the adapter first, or correct the path")
    manifest = read_manifest(folder)
    if base is not None:
        check_fits(manifest, base)
