"""What a user can ask for: one file, YAML or JSON, with two models and some tasks."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from loraloom.adapters.errors import InvalidName
from loraloom.adapters.names import check_name
from loraloom.adapters.scanner import number_text
from loraloom.server.proxy.evaluation.errors import InvalidEvaluation

HEADLINE = 1.0
"""The strength that the paper uses, which nobody chose by looking at the test prompts."""

Matcher = Literal["exact", "contains", "prefix"]


class Part(BaseModel):
    """What all parts of a description have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TaskSpec(Part):
    """One task.

    Attributes:
        name: in the results.
        test: JSONL file of {"prompt", "expected"}, the prompts that are asked.
        shots: the same of others, the first of which are put into the prompt.
        small_adapter: folder of an adapter of the small model, as peft saves it; with an `expert`, None.
        large_adapter: folder of an adapter of the large model; None leaves the share of the gap undefined.
        matcher: an answer is right that is the expected one, contains it, or begins with it; white space around
            either does not count.
    """

    name: str
    test: Path
    shots: Path | None = None
    small_adapter: Path | None = None
    large_adapter: Path | None = None
    matcher: Matcher = "exact"

    @field_validator("name")
    @classmethod
    def _name_is_one_part(cls, value: str) -> str:
        try:
            check_name(f"tuned/{value}")
        except InvalidName:
            raise ValueError(f"{value!r} is no name: take up to 64 letters, digits, dots, dashes and lines") from None
        return value

    @property
    def adapter(self) -> str:
        """What its adapters are published as; no served model can have the same name."""
        return f"tuned/{self.name}"


class EvaluationSpec(Part):
    """A comparison.

    Attributes:
        large: folder or Hugging Face id of the model that is steered; "demo:large" is the demo's.
        small: the same of the model whose adapters steer it; "demo:small" is the demo's.
        expert: the same of a tuned copy of the small model, which takes the place of its adapters.
        alphas: strengths of steering, 1 among them.
        shots: examples that the arm with examples in its prompt gets; 0 leaves that arm out.
        max_tokens: of an answer.
        concurrency: requests at once.
        speed_rounds: how often speed is measured at a fixed length of answers; 0 leaves that out.
        start_timeout: seconds that a server may take to start.
        vllm: further arguments of vLLM's, for every server.
        tasks: what is asked.
    """

    large: str
    small: str
    expert: str | None = None
    alphas: tuple[float, ...] = (0.5, HEADLINE, 1.5)
    shots: int = Field(default=5, ge=0, le=1000)
    max_tokens: int = Field(default=64, ge=1)
    concurrency: int = Field(default=8, ge=1, le=1024)
    speed_rounds: int = Field(default=5, ge=0, le=1000)
    start_timeout: float = Field(default=1800, gt=0)
    vllm: tuple[str, ...] = ()
    tasks: tuple[TaskSpec, ...] = Field(min_length=1)

    @field_validator("alphas")
    @classmethod
    def _alphas_have_the_headline(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if HEADLINE not in value:
            raise ValueError("1 must be among them: it is the one that is not chosen by the test prompts")
        if len(set(map(number_text, value))) < len(value) or not all(-4 <= alpha <= 4 for alpha in value):
            raise ValueError("give each once, from -4 to 4")
        return tuple(sorted(value))

    @field_validator("vllm", mode="before")
    @classmethod
    def _vllm_may_be_one_line(cls, value: object) -> object:
        if isinstance(value, str):
            return shlex.split(value)
        return [str(each) for each in value] if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _parts_agree(self) -> "EvaluationSpec":
        names = [task.name.casefold() for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError("tasks: each needs a name of its own, also without regard to case")
        for task in self.tasks:
            _check_task(task, self)
        return self


def _check_task(task: TaskSpec, spec: EvaluationSpec) -> None:
    if spec.expert is None and task.small_adapter is None:
        raise ValueError(f"tasks: {task.name} needs a small_adapter, or the file an expert")
    if spec.expert is not None and task.small_adapter is not None:
        raise ValueError(
            f"tasks: the expert takes the place of the small_adapter of {task.name}: leave one of them out"
        )
    if spec.shots and task.shots is None:
        raise ValueError(f"tasks: {task.name} needs a file of shots, or the whole file `shots: 0`")


def spec_from(values: object) -> EvaluationSpec:
    """The comparison that an object of YAML or JSON describes.

    Raises:
        InvalidEvaluation: with the field, and what it may be.
    """
    if not isinstance(values, Mapping):
        raise InvalidEvaluation("an evaluation is a mapping of fields: large, small and tasks at the least")
    try:
        return EvaluationSpec.model_validate(values)
    except ValidationError as error:
        raise InvalidEvaluation("; ".join(_problem(each) for each in error.errors())) from error


def read_spec(path: Path) -> EvaluationSpec:
    """The comparison in a YAML or JSON file, with absolute paths.

    Raises:
        InvalidEvaluation: the file cannot be read, or does not fit.
    """
    return resolved(written_spec(path), path.parent)


def written_spec(path: Path) -> EvaluationSpec:
    """The comparison in a YAML or JSON file, with paths as they are written there.

    Raises:
        InvalidEvaluation: the file cannot be read, or does not fit.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_bytes())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidEvaluation(f"{path} cannot be read as YAML or JSON: {error}") from error
    return spec_from(values)


def resolved(spec: EvaluationSpec, folder: Path) -> EvaluationSpec:
    """The same with absolute paths: the files of tasks are beside the description, models there or where we are."""
    models = {field: _found(value, folder) for field in ("large", "small", "expert") if (value := getattr(spec, field))}
    return spec.model_copy(update={**models, "tasks": tuple(_beside(task, folder) for task in spec.tasks)})


def _beside(task: TaskSpec, folder: Path) -> TaskSpec:
    fields = ("test", "shots", "small_adapter", "large_adapter")
    return task.model_copy(
        update={field: (folder / value).absolute() for field in fields if (value := getattr(task, field)) is not None}
    )


def nearest(name: str, folder: Path) -> Path | None:
    """What is called so beside the description, else in the working directory, as an absolute path; None without."""
    places = (start / os.path.expanduser(name) for start in (folder, Path()))
    return next((place.absolute() for place in places if place.exists()), None)


def _found(model: str, folder: Path) -> str:
    """A model that is a folder, as an absolute path: servers run elsewhere."""
    place = nearest(model, folder)
    return str(place) if place is not None and place.is_dir() else model


def _problem(details: Any) -> str:
    where = ".".join(str(part) for part in details["loc"])
    if details["type"] == "extra_forbidden":
        return f"{where}: there is no such field"
    reason = str(details.get("ctx", {}).get("error", details["msg"]))
    return f"{where}: {reason}" if where else reason
