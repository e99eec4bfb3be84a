"""From settings to the command, arguments and environment of the engine's server."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points

from loraloom.server.errors import InvalidSettings
from loraloom.server.machine import Machine
from loraloom.server.proxy.launching import plan_proxy
from loraloom.server.settings import RANKS, Settings
from loraloom.server.store import open_store
from loraloom.server.tuning import given, tune

OWNED = {
    "--model": "the positional argument MODEL",
    "--host": "--host before the `--`",
    "--port": "--port before the `--`",
    "--uds": "--host and --port before the `--`",
    "--served-model-name": "--served-name before the `--`",
    "--api-key": "`loraloom keys create`: each key has a role, adapters and limits of its own",
    "--middleware": "a proxy in front of the server: the gate must be the outermost",
    "--worker-extension-cls": "a general plugin: LoraLoom reads adapters there",
    "--enable-lora": "nothing: it is always on",
    "--no-enable-lora": "`vllm serve`, if you serve no adapters",
    "--lora-modules": "loraloom adapters import",
    "--max-loras": "--max-loras before the `--`",
    "--max-cpu-loras": "--max-cpu-loras before the `--`",
    "--max-lora-rank": "--max-lora-rank before the `--`",
    "--api-server-count": "several servers on one store: each knows only what it has loaded itself",
    "--root-path": "a proxy that strips the prefix",
    "--config": "the arguments themselves after the `--`, or loraloom.yaml for LoraLoom's own",
    "--shutdown-timeout": "--drain-timeout before the `--`",
    "--otlp-traces-endpoint": "LORALOOM_OTLP_TRACES_ENDPOINT, or otlp_traces_endpoint in loraloom.yaml",
}
"""Arguments of vLLM that LoraLoom sets itself, and what to use instead."""

PLUGIN_GROUPS = (
    "vllm.general_plugins",
    "vllm.io_processor_plugins",
    "vllm.platform_plugins",
    "vllm.stat_logger_plugins",
    "vllm.lora_resolver_plugins",
)
OURS = ("loraloom", "loraloom_routes")

FORMS_BY = "--structured-outputs-config.backend"

USUAL_RANK = 16
"""What an adapter that is added later should find room for."""
MIXED, MIXED_RANK = 4, 64
"""Unless the user says otherwise, there is room for mixtures of so many of the largest adapters, up to this rank."""


@dataclass(frozen=True)
class Launch:
    """How to start the engine's server.

    Attributes:
        arguments: vLLM's arguments.
        environment: variables to set, over the user's own.
        notes: what was chosen for the user, a line each.
        program: what to start with these arguments.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    notes: tuple[str, ...] = ()
    program: tuple[str, ...] = (sys.executable, "-m", "loraloom.server.child")

    @property
    def command(self) -> tuple[str, ...]:
        """The child's command line."""
        return (*self.program, *self.arguments)


def plan(settings: Settings, extra: Sequence[str], machine: Machine, environment: Mapping[str, str]) -> Launch:
    """Decide how to start the engine's server.

    Args:
        settings: the merged settings.
        extra: the user's own arguments for vLLM.
        machine: what there is to run on.
        environment: the user's environment, which wins over what would be chosen here.

    Raises:
        InvalidSettings: no model, or an argument in `extra` that LoraLoom sets itself.
        StoreError: the store cannot be used.
        ProxyMismatch, InvalidBase: the small model of proxy-tuning does not fit, or is not within reach.
    """
    if settings.model is None:
        raise InvalidSettings("no model: name one, as in `loraloom serve MODEL`, or set `model` in loraloom.yaml")
    _refuse_owned(extra)
    if environment.get("VLLM_API_KEY"):
        raise InvalidSettings(
            "VLLM_API_KEY is set, and would turn away everybody: unset it. LoraLoom has keys of its own, each with a "
            "role, adapters and limits: `loraloom keys create`"
        )
    if not machine.on_cpu and given(extra, "--dtype") in ("float32", "float"):
        raise InvalidSettings(
            "--dtype float32: vLLM's LoRA kernels for a GPU take float16 and bfloat16 only; give --dtype bfloat16"
        )
    rank = _rank_for(settings) if settings.max_lora_rank == "auto" else settings.max_lora_rank
    proxy = plan_proxy(settings, extra)
    extra = (*proxy.arguments, *extra)
    tuning = tune(settings, rank, extra, machine, proxy.footprint, environment)
    usage = {} if "VLLM_NO_USAGE_STATS" in environment else {"VLLM_NO_USAGE_STATS": "1"}
    required = {"VLLM_PLUGINS": ",".join(_plugins(environment))}
    return Launch(
        arguments=(*_arguments(settings, rank), *_forms(extra), *tuning.arguments, *extra),
        environment={**usage, **tuning.environment, **required},
        notes=(*proxy.notes, *_rank_note(settings, rank), *tuning.notes),
    )


def _arguments(settings: Settings, rank: int) -> tuple[str, ...]:
    options = {
        "--model": str(settings.model),
        "--served-model-name": settings.base_name,
        "--host": settings.host,
        "--port": str(settings.port),
        "--max-loras": str(settings.max_loras),
        "--max-cpu-loras": str(settings.max_cpu_loras),
        "--max-lora-rank": str(rank),
        "--middleware": "loraloom.server.gate.middleware.GateMiddleware",
        "--worker-extension-cls": "loraloom.server.worker.AdapterReading",
        "--shutdown-timeout": str(round(settings.drain_timeout)),
        "--scheduling-policy": "priority",  # so that jobs come after requests; without priorities it is first come
    }
    if settings.otlp_traces_endpoint is not None:
        options["--otlp-traces-endpoint"] = settings.otlp_traces_endpoint
    # There is a line for each request already, and it says more.
    return ("--disable-uvicorn-access-log", "--enable-lora", *(word for option in options.items() for word in option))


def _forms(extra: Sequence[str]) -> tuple[str, ...]:
    """By what answers are given a form (a JSON schema, a grammar), where the user does not say.

    Left alone, vLLM takes for all requests what suits the first of them, and then fails others.
    """
    return () if given(extra, FORMS_BY) else (FORMS_BY, "xgrammar")


def _refuse_owned(extra: Sequence[str]) -> None:
    for word in extra:
        flag = re.split("[=.]", word, maxsplit=1)[0].replace("_", "-")
        # vLLM's parser takes an argument's first letters for the whole.
        owned = next((name for name in OWNED if len(flag) > 2 and name.startswith(flag)), None)
        if owned:
            raise InvalidSettings(f"{word} is set by LoraLoom; use {OWNED[owned]}")


def _rank_for(settings: Settings) -> int:
    """The smallest rank that vLLM accepts and that fits every adapter, mixtures of a few as far as 64, and 16."""
    store = open_store(settings)
    ranks = [record.rank for name in store.names() for record in store.versions(name)]
    largest = max(ranks, default=USUAL_RANK)
    wanted = max(largest, min(MIXED * largest, MIXED_RANK), USUAL_RANK)
    return next((rank for rank in RANKS if rank >= wanted), RANKS[-1])


def _rank_note(settings: Settings, rank: int) -> Iterator[str]:
    if settings.max_lora_rank == "auto":
        yield f"--max-lora-rank {rank}, by the adapters in the store and with room for mixtures of them"


def _plugins(environment: Mapping[str, str]) -> list[str]:
    """An allow-list for vLLM with our plugins in it.

    Routes load only when they are named there, and naming any makes the list cover every group: so without a list of
    the user's own, everything that would have loaded is named too.
    """
    given = environment.get("VLLM_PLUGINS")
    if given is None:
        names = [plugin.name for group in PLUGIN_GROUPS for plugin in entry_points(group=group)]
    else:
        names = [name for name in given.split(",") if name]
    return [*dict.fromkeys([*names, *OURS])]
