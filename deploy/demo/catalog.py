"""The demo's adapters: LoRA adapters of its two models that come with the package, each with solved examples."""

import json
from dataclasses import dataclass
from pathlib import Path

_DEMO = Path(__file__).parent


@dataclass(frozen=True)
class DemoAdapter:
    """One adapter of the demo model, or of the small one.

    Attributes:
        name: what to publish it as.
        folder: its folder in PEFT's format.
        task: what it does, in one line.
        examples: (user message, expected answer), of prompts that it was not trained on and answers right.
    """

    name: str
    folder: Path
    task: str
    examples: tuple[tuple[str, str], ...]


def demo_adapters() -> tuple[DemoAdapter, ...]:
    """Every adapter of the demo model that comes with the package, in order of name."""
    return _read_all(_DEMO / "adapters")


def small_adapters() -> tuple[DemoAdapter, ...]:
    """The same for the demo's small model; their tasks are among those of the demo model's adapters."""
    return _read_all(_DEMO / "small-model" / "adapters")


def demo_jobs() -> dict[str, Path]:
    """The descriptions of the demo's jobs for `loraloom compose`, by their names."""
    return {path.stem: path for path in sorted((_DEMO / "jobs").glob("*.yaml"))}


def _read_all(folder: Path) -> tuple[DemoAdapter, ...]:
    return tuple(_read(path) for path in sorted(folder.iterdir()) if (path / "card.json").is_file())


def _read(folder: Path) -> DemoAdapter:
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    lines = (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    examples = tuple((line["prompt"], line["expected"]) for line in map(json.loads, lines))
    return DemoAdapter(card["name"], folder, card["about"], examples)
