"""From settings to the engine's command line and environment."""

import argparse
import dataclasses
import importlib
import json
import sys
import warnings
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from loraloom.adapters.errors import StoreError
from loraloom.server.errors import InvalidSettings
from loraloom.server.launch import OURS, OWNED, Launch, plan
from loraloom.server.machine import Machine
from loraloom.server.proxy.pair import ARCHITECTURE
from loraloom.server.settings import Settings
from tests.server.conftest import Publish
from tests.server.machine.test_machine import CPU
from tests.server.proxy.configurations import LLAMA32_1B
from tests.server.proxy.configurations import write_model as write_proxy_model
from tests.server.test_footprint import write_model

GPU = dataclasses.replace(CPU, gpu="NVIDIA L4", distribution="vllm")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(model="/models/tiny", adapters=str(tmp_path / "store"), cache=tmp_path / "cache")


def planned(
    settings: Settings, *extra: str, machine: Machine = CPU, environment: Mapping[str, str] | None = None
) -> Launch:
    return plan(settings, extra, machine, environment or {})


def value(launch: Launch, option: str) -> str:
    """What follows an option that is given once."""
    assert launch.arguments.count(option) == 1
    return launch.arguments[launch.arguments.index(option) + 1]


def test_settings_become_arguments(settings: Settings) -> None:
    changed = settings.model_copy(update={"host": "::1", "port": 9, "max_loras": 3, "max_cpu_loras": 7})
    launch = planned(changed, "--max-model-len", "64")
    assert launch.command[:3] == (sys.executable, "-m", "loraloom.server.child")
    assert launch.command[3:] == launch.arguments
    assert "--enable-lora" in launch.arguments
    assert value(launch, "--model") == "/models/tiny"
    assert value(launch, "--served-model-name") == "tiny"
    assert (value(launch, "--host"), value(launch, "--port")) == ("::1", "9")
    assert (value(launch, "--max-loras"), value(launch, "--max-cpu-loras")) == ("3", "7")
    assert value(launch, "--shutdown-timeout") == "30"
    assert value(launch, "--scheduling-policy") == "priority"
    assert launch.arguments[-2:] == ("--max-model-len", "64")


def test_a_key_of_vllms_own_is_refused_with_what_to_use(settings: Settings) -> None:
    with pytest.raises(InvalidSettings, match="loraloom keys create"):
        planned(settings, environment={"VLLM_API_KEY": "secret"})


def test_the_users_own_scheduling_wins(settings: Settings) -> None:
    """vLLM's parser takes the last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vLLM's own imports warn of deprecations
        from loraloom.server import engine

        ours, theirs = (
            engine._parse(planned(settings, *extra).arguments).scheduling_policy
            for extra in ((), ("--scheduling-policy", "fcfs"))
        )
    assert (ours, theirs) == ("priority", "fcfs")


@pytest.mark.parametrize("option", ["--middleware", "--worker-extension-cls"])
def test_what_vllm_imports_is_named_as_it_is(settings: Settings, option: str) -> None:
    module, _, name = value(planned(settings), option).rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vLLM's own imports warn of deprecations
        assert isinstance(getattr(importlib.import_module(module), name), type)


@pytest.mark.parametrize("other", [(), ("--structured-outputs-config.enable_in_reasoning", "true")])
def test_answers_are_given_a_form_by_one_backend(settings: Settings, other: tuple[str, ...]) -> None:
    assert value(planned(settings, *other), "--structured-outputs-config.backend") == "xgrammar"


@pytest.mark.parametrize(
    "own",
    [
        ("--structured-outputs-config.backend", "guidance"),
        ("--structured_outputs_config.backend=guidance",),
        ("--structured-outputs-config", '{"backend": "guidance"}'),
    ],
)
def test_the_users_own_backend_wins(settings: Settings, own: tuple[str, ...]) -> None:
    arguments = planned(settings, *own).arguments
    assert arguments[-len(own) :] == own
    assert "xgrammar" not in arguments


def test_without_a_model_there_is_nothing_to_serve() -> None:
    with pytest.raises(InvalidSettings, match="no model: name one, as in `loraloom serve MODEL`"):
        planned(Settings())


@pytest.mark.parametrize("flag", OWNED)
def test_what_loraloom_sets_is_refused_in_every_spelling(settings: Settings, flag: str) -> None:
    underscored = "--" + flag[2:].replace("-", "_")
    for word in (flag, f"{flag}=1", underscored, f"{underscored}=1", f"{flag}.key=1", flag[:-1]):
        with pytest.raises(InvalidSettings) as caught:
            planned(settings, "--seed", "1", word)
        assert str(caught.value) == f"{word} is set by LoraLoom; use {OWNED[flag]}"


def test_the_shortest_prefix_is_refused_as_argparse_would_take_it(settings: Settings) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    assert parser.parse_args(["--ho", "::"]).host == "::"
    with pytest.raises(InvalidSettings, match="--host before the `--`"):
        planned(settings, "--ho", "::")


def test_flags_that_only_begin_alike_pass(settings: Settings) -> None:
    extra = ("--model-impl", "vllm", "--max-num-seqs", "4", "--host-name", "x", "-tp", "2", "--", "host")
    assert planned(settings, *extra).arguments[-len(extra) :] == extra


@pytest.mark.parametrize(
    ("ranks", "chosen"), [((), "64"), ((1,), "16"), ((4, 8), "32"), ((8, 17), "64"), ((65,), "128"), ((600,), "512")]
)
def test_the_rank_leaves_room_for_mixtures(
    settings: Settings, publish: Publish, ranks: tuple[int, ...], chosen: str
) -> None:
    for rank in ranks:
        publish("sql", rank=rank)
    launch = planned(settings)
    assert value(launch, "--max-lora-rank") == chosen
    assert any(note.startswith(f"--max-lora-rank {chosen}, by the adapters in the store") for note in launch.notes)


def test_a_given_rank_stays(settings: Settings, publish: Publish) -> None:
    publish("sql", rank=32)
    launch = planned(settings.model_copy(update={"max_lora_rank": 8}))
    assert value(launch, "--max-lora-rank") == "8"
    assert not any("rank" in note for note in launch.notes)


def test_a_store_that_cannot_be_used_ends_it(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        planned(settings.model_copy(update={"adapters": str(tmp_path / "file/store")}))


def test_what_is_tuned_comes_before_the_users_own(settings: Settings) -> None:
    launch = planned(settings, "--seed", "1")
    assert launch.arguments[-4:] == ("--dtype", "float32", "--seed", "1")
    assert launch.environment["LD_PRELOAD"] == ":".join(map(str, CPU.libraries.beside({})))
    assert [note.partition(" ")[0] for note in launch.notes] == [
        "--max-lora-rank",
        "--dtype",
        "VLLM_CPU_KVCACHE_SPACE=1:",
        "threads:",
        "LD_PRELOAD:",
    ]


def test_memory_is_counted_by_the_model_and_the_served_rank(settings: Settings, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    machine = dataclasses.replace(CPU, memory_available=16 * 2**30)

    def space(rank: int) -> str:
        changed = settings.model_copy(update={"model": str(model), "max_lora_rank": rank})
        return planned(changed, machine=machine).environment["VLLM_CPU_KVCACHE_SPACE"]

    assert (space(8), space(512)) == ("6", "3")


def test_nothing_is_tuned_on_a_gpu(settings: Settings) -> None:
    launch = planned(settings, machine=GPU)
    assert "--dtype" not in launch.arguments
    assert set(launch.environment) == {"VLLM_NO_USAGE_STATS", "VLLM_PLUGINS"}


@pytest.mark.parametrize("extra", [["--dtype", "float32"], ["--dtype=float"]])
def test_a_dtype_that_lora_on_a_gpu_cannot_compute_with_is_refused(settings: Settings, extra: list[str]) -> None:
    with pytest.raises(InvalidSettings, match="give --dtype bfloat16"):
        planned(settings, *extra, machine=GPU)
    planned(settings, *extra)


def test_the_users_environment_wins(settings: Settings) -> None:
    launch = planned(settings, environment={"VLLM_CPU_KVCACHE_SPACE": "9", "VLLM_NO_USAGE_STATS": "0"})
    assert not {"VLLM_CPU_KVCACHE_SPACE", "VLLM_NO_USAGE_STATS"} & set(launch.environment)
    assert not any("KVCACHE" in note for note in launch.notes)


def test_usage_statistics_are_off(settings: Settings) -> None:
    assert planned(settings).environment["VLLM_NO_USAGE_STATS"] == "1"


@pytest.mark.parametrize(
    ("given", "merged"),
    [
        ("mine", "mine,loraloom,loraloom_routes"),
        ("", "loraloom,loraloom_routes"),
        ("loraloom_routes,mine", "loraloom_routes,mine,loraloom"),
    ],
)
def test_a_users_plugins_are_merged(settings: Settings, given: str, merged: str) -> None:
    assert planned(settings, environment={"VLLM_PLUGINS": given}).environment["VLLM_PLUGINS"] == merged


def test_without_a_list_every_plugin_is_named_that_would_load_anyway(settings: Settings) -> None:
    names = planned(settings).environment["VLLM_PLUGINS"].split(",")
    installed = {plugin.name for plugin in entry_points(group="vllm.general_plugins")}
    assert {*installed, *OURS} <= set(names)
    assert len(names) == len(set(names))
    assert {plugin.name for plugin in entry_points(group="vllm.endpoint_plugins")} & set(names) == {"loraloom_routes"}


def test_our_plugins_are_installed() -> None:
    groups = ("vllm.general_plugins", "vllm.endpoint_plugins")
    assert set(OURS) <= {plugin.name for group in groups for plugin in entry_points(group=group)}


def test_a_small_model_is_composed_before_the_users_own(settings: Settings, tmp_path: Path) -> None:
    large, small = (write_proxy_model(tmp_path / name, LLAMA32_1B) for name in ("large", "small"))
    pair = settings.model_copy(update={"model": str(large), "proxy_small": str(small)})
    launch = planned(pair, "--seed", "1")
    assert json.loads(value(launch, "--hf-overrides"))["architectures"] == [ARCHITECTURE]
    assert launch.arguments[-2:] == ("--seed", "1")
    assert launch.arguments.index("--hf-overrides") < launch.arguments.index("--seed")
    assert launch.notes[0].startswith(f"proxy-tuning: {large} + 1 * (")
    with pytest.raises(InvalidSettings, match="--hf-overrides does not go with --proxy-small"):
        planned(pair, "--hf-overrides", "{}")
    assert "--hf-overrides" in planned(settings, "--hf-overrides", "{}").arguments
