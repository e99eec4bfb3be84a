"""A comparison as it will be done: everything that can be refused is refused here, before an engine is started."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from loraloom.adapters.base import BaseFingerprint, check_fits, fingerprint
from loraloom.adapters.manifest import read_manifest
from loraloom.server import launch
from loraloom.server.machine import Machine, inspect
from loraloom.server.proxy.evaluation.errors import InvalidEvaluation, Problems
from loraloom.server.proxy.evaluation.models import Models, locate
from loraloom.server.proxy.evaluation.rounds import Tell
from loraloom.server.proxy.evaluation.servers import TEMPLATE_FLAG, ServerPlan, servers_of
from loraloom.server.proxy.evaluation.spec import EvaluationSpec, nearest, resolved, written_spec
from loraloom.server.proxy.evaluation.task import Task, read_task
from loraloom.server.proxy.fitting.fit import Fit, check_fit
from loraloom.server.tuning import given

_LENGTH_FLAG, _DTYPE_FLAG = "--max-model-len", "--dtype"
_INLINE = "{}\n"
"""With one of these, vLLM takes a chat template that is no file for the template itself."""
_NEEDED = ("httpx", "matplotlib")


@dataclass(frozen=True)
class Plan:
    """What is done.

    Attributes:
        spec: as described, with absolute paths.
        written: as described, word for word.
        models: where they are.
        tasks: with their files read.
        template: the chat template by which every model is asked.
        vllm: further arguments of vLLM's, for every server.
        dtypes: the types that `serve` chose for engines, by server; those that it left to vLLM are not there.
        notes: what is good to know of the models.
    """

    spec: EvaluationSpec
    written: EvaluationSpec
    models: Models
    tasks: tuple[Task, ...]
    template: str
    vllm: tuple[str, ...] = ()
    dtypes: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def planned(path: Path, tell: Tell) -> Plan:
    """What will be done.

    Args:
        path: of the description.
        tell: is told of steps that take seconds.

    Raises:
        InvalidEvaluation: with everything that is missing or does not fit, a line each.
    """
    written = written_spec(path)
    spec, problems = resolved(written, path.parent), Problems()
    problems.note(_check_installed)
    tasks = [problems.note(partial(read_task, each, spec.shots), each.name) for each in spec.tasks]
    models = problems.note(partial(_located, spec, tell))
    fit = None if models is None else problems.note(partial(_fit, models))
    template = None if fit is None else problems.note(partial(_template, fit, spec, path.parent))
    vllm = spec.vllm if fit is None else (*spec.vllm, *_length(fit, spec))
    dtypes: Mapping[str, str] = {}
    if models is not None:
        _check_adapters(spec, models, problems)
        dtypes = _check_servers([each for each in servers_of(spec, models) if fit or not each.proxy], vllm, problems)
    problems.raise_if_any()
    assert models is not None
    assert fit is not None
    assert template is not None
    return Plan(spec, written, models, tuple(filter(None, tasks)), template, vllm, dtypes, fit.notes)


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


def _template(fit: Fit, spec: EvaluationSpec, folder: Path) -> str:
    """The large model's chat template, unless the user gives another one."""
    if (chosen := given(spec.vllm, TEMPLATE_FLAG)) is not None:
        return _read_template(chosen, folder)
    tokens = fit.large.tokens
    if tokens.templates:
        names = ", ".join(tokens.templates)
        raise InvalidEvaluation(
            f"{fit.large.name} has several chat templates ({names}), none called default: name a file with one of them "
            f"as `vllm: [{TEMPLATE_FLAG}, FILE]`"
        )
    if tokens.chat_template is None:
        raise InvalidEvaluation(f"{fit.large.name} has no chat template: name one as `vllm: [{TEMPLATE_FLAG}, FILE]`")
    return tokens.chat_template


def _read_template(chosen: str, folder: Path) -> str:
    """As vLLM has it, but beside the description too."""
    if any(sign in chosen for sign in _INLINE):
        return chosen
    if (place := nearest(chosen, folder)) is None:
        raise InvalidEvaluation(f"{TEMPLATE_FLAG} {chosen}: there is no such file; correct the path")
    try:
        return place.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidEvaluation(f"{TEMPLATE_FLAG} {place} is no text: {error}") from error


def _length(fit: Fit, spec: EvaluationSpec) -> tuple[str, ...]:
    """The longest sequence that every model knows, for all of them, where they differ and the user has not chosen."""
    models = (fit.large, fit.small, fit.expert)
    lengths = {model.architecture.max_position_embeddings for model in models if model is not None} - {0}
    if len(lengths) < 2 or given(spec.vllm, _LENGTH_FLAG) is not None:
        return ()
    return _LENGTH_FLAG, str(min(lengths))


def _check_servers(servers: list[ServerPlan], vllm: tuple[str, ...], problems: Problems) -> Mapping[str, str]:
    """Note what `serve` would refuse; returns the types that it chooses."""
    machine = inspect()
    launches = {each.name: problems.note(partial(_launch, each, vllm, machine), "vllm") for each in servers}
    chosen = {name: given(each.arguments, _DTYPE_FLAG) for name, each in launches.items() if each is not None}
    return {name: dtype for name, dtype in chosen.items() if dtype is not None}


def _launch(server: ServerPlan, vllm: tuple[str, ...], machine: Machine) -> launch.Launch:
    return launch.plan(server.settings, vllm, machine, {})


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
