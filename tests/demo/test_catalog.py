"""The committed adapters are what their cards and the catalogue say."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from loraloom.demo import small
from loraloom.demo.catalog import DemoAdapter, demo_adapters, small_adapters

ADAPTERS = demo_adapters()
SMALL = small_adapters()
FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors", "card.json", "examples.jsonl"}
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
each = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
of_both = pytest.mark.parametrize(
    "adapter", [*ADAPTERS, *SMALL], ids=lambda adapter: f"{adapter.folder.parts[-3]}-{adapter.name}"
)


def read(adapter: DemoAdapter, file: str) -> dict[str, object]:
    return json.loads((adapter.folder / file).read_text(encoding="utf-8"))


def test_there_are_at_least_eight_with_distinct_names() -> None:
    assert len({adapter.name for adapter in ADAPTERS}) == len(ADAPTERS) >= 8


def test_the_small_model_has_five_or_more_for_the_same_tasks() -> None:
    tasks = {adapter.name: adapter.task for adapter in ADAPTERS}
    assert len({adapter.name for adapter in SMALL}) == len(SMALL) >= 5
    assert all(tasks[adapter.name] == adapter.task for adapter in SMALL)


@of_both
def test_holds_its_files_and_nothing_else(adapter: DemoAdapter) -> None:
    assert {path.name for path in adapter.folder.iterdir()} == FILES
    assert adapter.folder.name == adapter.name


@of_both
def test_weights_are_small_and_bfloat16(adapter: DemoAdapter) -> None:
    weights = adapter.folder / "adapter_model.safetensors"
    assert weights.stat().st_size <= 3_300_000
    with safe_open(weights, framework="np") as tensors:
        assert {tensors.get_slice(key).get_dtype() for key in tensors.keys()} == {"BF16"}  # noqa: SIM118 (no mapping)


@each
def test_gains_thirty_points_over_the_base(adapter: DemoAdapter) -> None:
    accuracy = read(adapter, "card.json")["accuracy"]
    assert isinstance(accuracy, dict)
    assert accuracy["prompts"] == 100
    assert accuracy["adapter"] - accuracy["base"] >= 30
    assert accuracy["adapter"] - accuracy["base_with_five_examples"] >= 30


def test_most_of_the_small_ones_gain_thirty_points() -> None:
    measured = [read(adapter, "card.json")["accuracy"] for adapter in SMALL]
    gains = [each["adapter"] - max(each["base"], each["base_with_five_examples"]) for each in measured]  # type: ignore
    assert sum(gain >= 30 for gain in gains) > len(gains) / 2


@of_both
def test_readme_states_what_the_card_measured(adapter: DemoAdapter) -> None:
    accuracy = read(adapter, "card.json")["accuracy"]
    assert isinstance(accuracy, dict)
    page = (adapter.folder / "README.md").read_text(encoding="utf-8")
    assert f"| base, no example | {accuracy['base']:g} |" in page
    assert f"| base, five examples in the prompt | {accuracy['base_with_five_examples']:g} |" in page
    assert f"| this adapter | {accuracy['adapter']:g} |" in page


@of_both
def test_config_names_the_public_base_and_no_path(adapter: DemoAdapter) -> None:
    config = read(adapter, "adapter_config.json")
    assert config["base_model_name_or_path"] == (small.NAME if adapter in SMALL else BASE)
    texts = [path.read_text(encoding="utf-8") for path in adapter.folder.iterdir() if path.suffix != ".safetensors"]
    assert not any(str(Path.home()) in text or "/tmp/" in text for text in texts)


@of_both
def test_config_agrees_with_the_card(adapter: DemoAdapter) -> None:
    config, card = read(adapter, "adapter_config.json"), read(adapter, "card.json")
    assert (config["r"], config["lora_alpha"]) == (card["rank"], card["alpha"])
    assert config["target_modules"] == sorted(card["targets"])  # type: ignore[call-overload]


@of_both
def test_has_ten_examples(adapter: DemoAdapter) -> None:
    assert len(dict(adapter.examples)) == 10
    assert all(prompt and expected for prompt, expected in adapter.examples)


def test_the_adapters_differ_in_kind() -> None:
    configs = [read(adapter, "adapter_config.json") for adapter in ADAPTERS]
    assert {config["r"] for config in configs} == {4, 8, 16}
    assert len({(config["r"], str(config["target_modules"])) for config in configs}) >= 4
    assert any(config["use_rslora"] for config in configs)
    assert any(config["rank_pattern"] and config["alpha_pattern"] for config in configs)
    assert any(config["layers_to_transform"] for config in configs)
    assert any(config["layers_to_transform"] is None for config in configs)
