"""What a user can set, and where each value came from.

Flags win over `LORALOOM_*`, which win over `loraloom.yaml`, which wins over the defaults. This is the one place
that reads the environment for LoraLoom's own settings.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from loraloom.server.errors import InvalidSettings

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM accepts as `max_lora_rank`, 1 aside."""

PREFIX = "LORALOOM_"
"""What the variables begin with; a setting's name in upper case follows."""
CONFIG = "LORALOOM_CONFIG"
"""The variable that names the configuration file."""
API_KEY = "LORALOOM_API_KEY"
"""The variable with the key of a server, which jobs show to it (`compose.spec.KEY`): it is no setting."""
HANDOFF = "LORALOOM_HANDOFF"
"""The variable by which the supervisor hands the settings to the server that it starts, as JSON."""


def data_home() -> Path:
    """The folder for a user's data, by the XDG base directory rules."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "loraloom"


def cache_home() -> Path:
    """The folder for what can be made again, by the XDG base directory rules."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loraloom"


class Settings(BaseModel):
    """Every setting of `loraloom serve`; the command line, the environment and the file use the same names."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    model: str | None = Field(None, description="directory or Hugging Face id of the base model")
    served_name: str | None = Field(None, description="name of the base model in requests [last part of the model]")
    host: str = Field("127.0.0.1", description="address to listen on")
    insecure: bool = Field(False, description="let others reach a server without keys")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    adapters: str = Field(
        default_factory=lambda: str(data_home() / "store"),
        description="the adapter store: a directory or an fsspec URL",
    )
    cache: Path = Field(default_factory=cache_home, description="folder for downloads and the cache of a remote store")
    cache_bytes: int = Field(20 * 2**30, ge=2**20, description="bound of the cache of a remote store, in bytes")
    jobs: Path = Field(default_factory=lambda: data_home() / "jobs", description="folder of the jobs of `compose`")
    max_loras: int = Field(8, ge=1, description="adapters in one batch (slots on the GPU)")
    max_cpu_loras: int = Field(64, ge=1, description="adapters in flight, and kept in main memory")
    max_lora_rank: int | Literal["auto"] = Field(
        "auto",
        description=f"largest rank served, one of {', '.join(map(str, RANKS))}; auto: by the store",
    )
    max_mixture_terms: int = Field(32, ge=1, description="adapters in one mixture")
    mixture_truncate: bool = Field(
        False, description="serve a mixture whose rank is too large truncated, and tell the error in a header"
    )
    mixture_cache_bytes: int = Field(4 * 2**30, ge=2**20, description="bound of the folder of built mixtures, in bytes")
    max_body_bytes: int = Field(16 * 2**20, ge=1024, description="largest request body, in bytes")
    max_bodies_bytes: int = Field(
        512 * 2**20, ge=1024, description="bodies of the requests that run or wait, all together, in bytes"
    )
    max_upload_bytes: int = Field(2 * 2**30, ge=1024, description="largest adapter upload, in bytes")
    proxy_small: str | None = Field(
        None, description="directory or Hugging Face id of a small model whose adapters steer the base by proxy-tuning"
    )
    proxy_expert: str | None = Field(
        None, description="the same of a tuned small model, which steers every request; expert = it + the adapter"
    )
    proxy_alpha: float = Field(1.0, description="strength of proxy-tuning where a request says none")
    proxy_max_alpha: float = Field(
        4.0, gt=0, le=1000, description="largest strength that a request may say, of either sign"
    )
    client_timeout: float = Field(
        60, gt=0, description="seconds a client may take to send a part of a request, or to take one of an answer"
    )
    queue_timeout: float = Field(60, gt=0, description="seconds a request waits for its turn, and for its adapter")
    max_waiting: int = Field(1024, ge=1, description="requests that wait for their turn, of all keys together")
    cold_wait: float = Field(
        2, ge=0, description="seconds a request waits for an adapter that is not running before others make room for it"
    )
    share_prefix_cache: bool = Field(False, description="let keys share the cache of prompts' beginnings")
    drain_timeout: float = Field(30, ge=0, description="seconds that running requests get at shutdown")
    max_restarts: int = Field(5, ge=0, description="restarts of a dead server within ten minutes before giving up")
    allowed_sources: tuple[str, ...] = Field(
        (),
        description="prefixes of the sources that POST /v1/adapters may fetch from, for example s3://bucket/",
    )
    convert_uploads: bool = Field(
        True, description="convert published adapters of other kinds; takes main memory for the base model once more"
    )
    open_paths: tuple[str, ...] = Field((), description="further paths of vLLM's server to open, for example /load")
    usage: Path | None = Field(
        default_factory=lambda: data_home() / "usage",
        description="folder of the ledger of what each request used; null: none",
    )
    metrics_adapters: int = Field(20, ge=0, description="adapters with metrics of their own; the rest are together")
    log_format: Literal["text", "json"] = Field("text", description="how a line about each request is written")
    otlp_traces_endpoint: str | None = Field(None, description="where OpenTelemetry traces go, for example a collector")
    cpu_kernels: bool = Field(True, description="use LoraLoom's LoRA kernels where the engine runs on a CPU")

    @field_validator("model", "adapters", "cache", "jobs", "usage", "proxy_small", "proxy_expert", mode="before")
    @classmethod
    def _home_is_known(cls, value: object) -> object:
        return os.path.expanduser(value) if isinstance(value, str) else value

    @field_validator("proxy_small", "proxy_expert", mode="after")
    @classmethod
    def _nothing_is_none(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("allowed_sources", "open_paths", mode="before")
    @classmethod
    def _commas_separate(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("max_lora_rank", mode="before")
    @classmethod
    def _rank_is_known(cls, value: object) -> object:
        if str(value) not in ("auto", *map(str, RANKS)):
            raise ValueError(f"must be 'auto' or one of {', '.join(map(str, RANKS))}")
        return value

    @field_validator("max_cpu_loras")
    @classmethod
    def _cpu_tier_holds_the_slots(cls, value: int, info: ValidationInfo) -> int:
        slots = info.data.get("max_loras", 1)
        if value < slots:
            raise ValueError(f"must be at least max_loras ({slots})")
        return value

    @field_validator("open_paths")
    @classmethod
    def _paths_are_absolute(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [path for path in value if not path.startswith("/")]:
            raise ValueError(f"paths start with '/': {', '.join(wrong)}")
        return value

    @field_validator("proxy_expert")
    @classmethod
    def _expert_has_an_antiexpert(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("proxy_small") is None:
            raise ValueError("needs proxy_small too, the model that it was tuned from")
        return value

    @field_validator("proxy_max_alpha")
    @classmethod
    def _default_alpha_is_allowed(cls, value: float, info: ValidationInfo) -> float:
        if abs(info.data.get("proxy_alpha", 0.0)) > value:
            raise ValueError(f"must be at least the default strength proxy_alpha, {info.data['proxy_alpha']:g}")
        return value

    @property
    def small_name(self) -> str:
        """What the small model is called, where there is one."""
        return last_part(str(self.proxy_small))

    @property
    def base_name(self) -> str:
        """The name under which requests select the base model."""
        return self.served_name or last_part(str(self.model))


def last_part(model: str) -> str:
    """The name of a model: what its directory, or its id on the Hugging Face Hub, ends with."""
    return os.path.basename(os.path.abspath(model))


@dataclass(frozen=True)
class Configuration:
    """Settings, and for each of them where its value came from.

    Attributes:
        settings: the validated values.
        origins: setting name to one of "flag", "environment LORALOOM_…", "file PATH", "default".
        ignored: variables that look like settings and are none.
    """

    settings: Settings
    origins: Mapping[str, str]
    ignored: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """One line a setting, `name: value  # origin`; together they are a valid `loraloom.yaml`."""
        values = self.settings.model_dump(mode="json")
        return [
            f"{name}: {json.dumps(value, ensure_ascii=False)}  # {self.origins[name]}" for name, value in values.items()
        ]


def configure(flags: Mapping[str, Any], file: Path | None = None) -> Configuration:
    """Merge flags, environment and file into settings.

    Args:
        flags: what the command line gave, by setting name; None means not given.
        file: the configuration file; by default what LORALOOM_CONFIG names, or else `loraloom.yaml` in the working
            directory where there is one.

    Raises:
        InvalidSettings: a value does not fit, a name is unknown, or the file cannot be read.
    """
    path = _file(file)
    given, ignored = _environment()
    layers = {
        "flag": {name: value for name, value in flags.items() if value is not None},
        "environment": given,
        f"file {path}": _read(path) if path else {},
    }
    merged: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for layer, values in reversed(layers.items()):
        merged |= values
        origins |= {name: _origin(layer, name) for name in values}
    try:
        return Configuration(Settings.model_validate(merged), origins, ignored)
    except ValidationError as error:
        raise InvalidSettings(_explain(error, origins)) from error


@dataclass(frozen=True)
class Handoff:
    """What the supervisor gives to the server that it starts.

    Attributes:
        settings: the merged settings.
        socket: file descriptor of the listening socket.
        control: file descriptor of the channel to the supervisor; it closes when the supervisor dies.
    """

    settings: Settings
    socket: int
    control: int

    def environment(self) -> dict[str, str]:
        """The environment variables that carry this to the child and to the processes that it starts."""
        settings = self.settings.model_dump(mode="json")
        return {HANDOFF: json.dumps({"settings": settings, "socket": self.socket, "control": self.control})}


def handed_over() -> Handoff | None:
    """What the supervisor gave to this process; None where there is no supervisor."""
    text = os.environ.get(HANDOFF)
    if text is None:
        return None
    given = json.loads(text)
    return Handoff(Settings.model_validate(given["settings"]), given["socket"], given["control"])


def _environment() -> tuple[dict[str, str], tuple[str, ...]]:
    """The settings that variables give (an empty one gives none), and the variables that are no settings."""
    variables = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    names = {PREFIX + name.upper(): name for name in Settings.model_fields}
    given = {names[variable]: value for variable, value in variables.items() if variable in names and value}
    return given, tuple(sorted(variables.keys() - names.keys() - {CONFIG, HANDOFF, API_KEY}))


def _file(given: Path | None) -> Path | None:
    named = given or os.environ.get(CONFIG)
    if not named:
        usual = Path("loraloom.yaml")
        return usual if usual.is_file() else None
    path = Path(named)
    if not path.is_file():
        origin = "--config" if given else CONFIG
        raise InvalidSettings(f"there is no configuration file {path}: correct {origin}, or leave it out")
    return path


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_bytes())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidSettings(f"{path} cannot be read as YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InvalidSettings(f"{path} is no mapping: write a setting a line, such as `port: 8000`")
    return {str(name): value for name, value in values.items()}


def _origin(layer: str, name: str) -> str:
    return f"environment {PREFIX}{name.upper()}" if layer == "environment" else layer


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    return "; ".join(_problem(details, origins) for details in error.errors())


def _problem(details: ErrorDetails, origins: Mapping[str, str]) -> str:
    name = str(details["loc"][0])
    if details["type"] == "extra_forbidden":
        reason = f"there is no such setting; there are {', '.join(Settings.model_fields)}"
    else:
        reason = str(details.get("ctx", {}).get("error", details["msg"]))
    return f"{name} ({origins[name]}): {reason}"
