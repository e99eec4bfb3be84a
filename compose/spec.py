"""What a user can ask for: one file, `job.yaml`, or the same as JSON. Every field has a default but the examples."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from loraloom.adapters.errors import InvalidName
from loraloom.adapters.names import check_name, check_tag, parse_adapter
from loraloom.compose.errors import InvalidSpec
from loraloom.compose.optimizers import DEFAULT_OPTIMIZER, OPTIMIZERS

T = TypeVar("T")

MAX_SEED = 2**31 - 1
MAX_ADAPTERS = 1000
"""That a pool may name one by one."""
KEY = "LORALOOM_API_KEY"
"""The variable with the key of a server that wants one: no job's file has it."""
SERVED_RANK = 64
"""The rank as far as which servers, left alone, make room for mixtures of what is in their store."""


class Part(BaseModel):
    """What all parts of a job's description have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Pool(Part):
    """Which adapters may be combined.

    Attributes:
        adapters: `"all"` of the base, `"tag:NAME"` (what that tag names of each), or a list of adapters, with versions
            or without.
        preselect: keep this many of them, those that do best alone or are most alike to the examples; None keeps all.
        by: how they are compared: "score" scores each alone; "similarity" takes one pass of the base model.
    """

    adapters: Literal["all"] | str | tuple[str, ...] = "all"
    preselect: int | None = Field(default=None, ge=2)
    by: Literal["score", "similarity"] = "score"

    @field_validator("adapters")
    @classmethod
    def _adapters_follow_the_grammar(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(value, str):
            if value != "all" and not value.startswith("tag:"):
                raise ValueError('give "all", "tag:NAME", or a list of adapters')
            if value != "all":
                _checked(check_tag, value.removeprefix("tag:"))
            return value
        if not value:
            raise ValueError("name two adapters at the least")
        if len(value) > MAX_ADAPTERS:
            raise ValueError(f"name {MAX_ADAPTERS} adapters at the most, and not {len(value):,}")
        for each in value:
            _checked(parse_adapter, each)
        return value


class Optimizer(Part):
    """How the weights are searched for.

    Attributes:
        name: one of `optimizers.OPTIMIZERS`.
        budget: how many candidates it may try, after the baselines.
        seed: of its randomness.
        bounds: of every weight.
        l1: of the objective `loss + l1 * mean |weight|`, in nats.
        start: where it begins: at the best of the baselines, or at zero as in the paper.
        early_stop: give a candidate up as soon as it cannot be the best any more; it is told as a bound.
        halving: score the better half of each population only on all examples; the others on half of them.
        break_symmetry: with `lorahub`, where w and -w are the same, search one half only.
    """

    name: str = DEFAULT_OPTIMIZER
    budget: int = Field(default=40, ge=1, le=100_000)
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    bounds: tuple[float, float] = (-1.5, 1.5)
    l1: float = Field(default=0.05, ge=0)
    start: Literal["best", "zero"] = "best"
    early_stop: bool = True
    halving: bool = False
    break_symmetry: bool = True

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, value: str) -> str:
        if value not in OPTIMIZERS:
            raise ValueError(f"there is no optimizer {value!r}; there are {', '.join(OPTIMIZERS)}")
        return value

    @field_validator("bounds")
    @classmethod
    def _bounds_hold_zero(cls, value: tuple[float, float]) -> tuple[float, float]:
        low, high = value
        if not (-100 <= low <= 0 < high <= 100):
            raise ValueError("give [low, high] with low at most 0, high above 0, and both within 100 of it")
        return value


class Publish(Part):
    """What becomes of the composition.

    Attributes:
        when: "if_better" publishes it only if the verdict is "better".
        tag: a tag to move to the new version, besides `latest`.
        rank: truncate it to this rank where its own is larger; what is judged is then the truncated one. "auto" is
            `SERVED_RANK`; None keeps its true rank.
    """

    when: Literal["if_better", "always", "never"] = "if_better"
    tag: str | None = None
    rank: Literal["auto"] | Annotated[int, Field(ge=1)] | None = "auto"

    @field_validator("tag")
    @classmethod
    def _tag_follows_the_grammar(cls, value: str | None) -> str | None:
        return value if value is None else _checked(check_tag, value)


class Server(Part):
    """Where the scorer `server` finds a running LoraLoom.

    Attributes:
        url: without the path.
        concurrency: requests at once.
        timeout: seconds that one may take.
        patience: seconds without any answer after which the job ends as interrupted.
    """

    url: str = "http://127.0.0.1:8000"
    concurrency: int = Field(default=16, ge=1, le=1024)
    timeout: float = Field(default=120, gt=0)
    patience: float = Field(default=60, ge=0)


class JobSpec(Part):
    """A job: from a few examples and a pool of adapters to one adapter, and a verdict on it.

    Attributes:
        name: of the adapter that is published.
        base: folder or Hugging Face id of the base model; None is what the pool's adapters name.
        pool: which adapters may be combined.
        examples: a JSONL file, or the examples themselves.
        holdout: what it is judged by: "leave-one-out", a share of the examples, a JSONL file, or examples;
            "auto" is leave-one-out for fewer than ten examples, and half of them otherwise.
        template: how examples become text: by the tokenizer's chat template, as plain text, or by whether it has one.
        method: how the adapters are mixed.
        optimizer: how the weights are searched for.
        scorer: a private copy of the model ("torch"), or a running server.
        server: where that is.
        objective: "loss" in nats a token; "exact_match", the share of answers that greedy decoding does not give; or
            "choice", the share where another of the example's choices is likelier.
        publish: what becomes of it.
        threads: that torch may compute on; None is as many as there are processors.
    """

    name: str = "composition"
    base: str | None = None
    pool: Pool = Pool()
    examples: Path | tuple[dict[str, Any], ...]
    holdout: Literal["auto", "leave-one-out"] | float | Path | tuple[dict[str, Any], ...] = "auto"
    template: Literal["auto", "chat", "plain"] = "auto"
    method: Literal["exact", "lorahub"] = "exact"
    optimizer: Optimizer = Optimizer()
    scorer: Literal["torch", "server"] = "torch"
    server: Server = Server()
    objective: Literal["loss", "exact_match", "choice"] = "loss"
    publish: Publish = Publish()
    threads: int | None = Field(default=None, ge=1)

    @field_validator("name")
    @classmethod
    def _name_follows_the_grammar(cls, value: str) -> str:
        return _checked(check_name, value)

    @field_validator("pool", mode="before")
    @classmethod
    def _a_pool_may_be_its_adapters(cls, value: object) -> object:
        return {"adapters": value} if isinstance(value, str | list | tuple) else value

    @field_validator("publish", mode="before")
    @classmethod
    def _publish_may_be_its_condition(cls, value: object) -> object:
        return {"when": value} if isinstance(value, str) else value

    @field_validator("holdout")
    @classmethod
    def _a_share_leaves_something(cls, value: object) -> object:
        if isinstance(value, float | int) and not 0 < value < 1:
            raise ValueError("a share of the examples lies between 0 and 1")
        return value

    @model_validator(mode="after")
    def _parts_agree(self) -> "JobSpec":
        if self.scorer == "server" and self.pool.preselect and self.pool.by == "similarity":
            raise ValueError("a server cannot compare by similarity: preselect by score, or use the scorer torch")
        if self.scorer == "server" and self.method == "lorahub" and isinstance(self.publish.rank, int):
            raise ValueError("a server truncates exact mixtures only: leave publish.rank out, or use the scorer torch")
        return self


def spec_from(values: object) -> JobSpec:
    """The job that an object of YAML or JSON describes.

    Raises:
        InvalidSpec: with the field, and what it may be.
    """
    if not isinstance(values, Mapping):
        raise InvalidSpec("a job is a mapping of fields: `loraloom compose init` writes one with all of them explained")
    try:
        return JobSpec.model_validate(values)
    except ValidationError as error:
        raise InvalidSpec("; ".join(_problem(each) for each in error.errors())) from error


def read_spec(path: Path) -> JobSpec:
    """The job in a YAML or JSON file; relative paths of examples are relative to the file.

    Raises:
        InvalidSpec: the file cannot be read, or does not fit.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_bytes())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidSpec(f"{path} cannot be read as YAML or JSON: {error}") from error
    spec = spec_from(values)
    found = {
        field: path.parent / value
        for field in ("examples", "holdout")
        if isinstance(value := getattr(spec, field), Path)
    }
    return spec.model_copy(update={**found, "base": _found_base(spec.base, path.parent)})


def _found_base(base: str | None, folder: Path) -> str | None:
    """A base that is a folder beside the file, as an absolute path."""
    return str((folder / base).absolute()) if base and (folder / base).is_dir() else base


def _checked(check: Callable[[str], T], text: str) -> T:
    """What `check` makes of the text, its error as one that pydantic understands."""
    try:
        return check(text)
    except InvalidName as error:
        raise ValueError(str(error)) from error


_NO_FIELDS = ("function-", "tuple[", "literal[", "lax-or-strict[", "constrained-", "is-instance[", "union[")
"""How pydantic names the branches of a union among the fields."""


def _problem(details: Any) -> str:
    where = ".".join(str(part) for part in details["loc"] if not str(part).startswith(_NO_FIELDS))
    if details["type"] == "extra_forbidden":
        return f"{where}: there is no such field"
    reason = str(details.get("ctx", {}).get("error", details["msg"]))
    return f"{where}: {reason}" if where else reason
