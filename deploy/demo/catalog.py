"""The demo's adapters: small LoRA adapters of the demo model that come with the package, each with solved examples."""

import json
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).with_name("adapters")


@dataclass(frozen=True)
class DemoAdapter:
    """One adapter of the demo model.

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
    """Every adapter that comes with the package, in order of name."""
    return tuple(_read(folder) for folder in sorted(_FOLDER.iterdir()) if (folder / "card.json").is_file())


def demo_jobs() -> dict[str, Path]:
    """The descriptions of the demo's jobs for `loraloom compose`, by their names."""
    return {path.stem: path for path in sorted(Path(__file__).with_name("jobs").glob("*.yaml"))}


def _read(folder: Path) -> DemoAdapter:
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    lines = (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    examples = tuple((line["prompt"], line["expected"]) for line in map(json.loads, lines))
    return DemoAdapter(card["name"], folder, card["about"], examples)
