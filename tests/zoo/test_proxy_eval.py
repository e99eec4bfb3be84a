"""The questions of the demo's comparison of proxy-tuning."""

from pathlib import Path

from loraloom.demo.catalog import demo_adapters
from loraloom.server.proxy.evaluation.spec import read_spec
from loraloom.server.proxy.evaluation.task import read_task

from .base import SMALL
from .proxy_eval import FOLDER, write
from .recipe import RECIPES, SMALL_RECIPES
from .task import HELD_OUT
from .tasks import TASKS

SPEC = read_spec(FOLDER / "spec.yaml")


def test_what_is_committed_is_what_is_drawn(tmp_path: Path) -> None:
    write(tmp_path)
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_bytes() for path in FOLDER.glob("*.jsonl")}


def test_every_task_of_the_small_model_is_asked() -> None:
    assert {task.name for task in SPEC.tasks} == set(SMALL_RECIPES)
    assert len(SPEC.tasks) >= 5
    for spec in SPEC.tasks:
        task = read_task(spec, SPEC.shots)
        assert (len(task.questions), len(task.shots), SPEC.shots) == (HELD_OUT, 6, 6)


def test_no_adapter_was_trained_on_what_is_asked_and_all_were_on_what_is_shown() -> None:
    for spec in SPEC.tasks:
        task = read_task(spec, SPEC.shots)
        asked, shown = ({each.prompt for each in part} for part in (task.questions, task.shots))
        for recipes in (RECIPES, SMALL_RECIPES):
            trained, _ = TASKS[spec.name].split(recipes[spec.name].examples)
            prompts = {example.prompt for example in trained}
            assert not asked & prompts
            assert shown <= prompts


def test_the_adapters_are_the_demos() -> None:
    folders = {adapter.name: adapter.folder for adapter in demo_adapters()}
    for spec in SPEC.tasks:
        assert spec.large_adapter is not None
        assert spec.small_adapter is not None
        assert spec.large_adapter.resolve() == folders[spec.name].resolve()
        assert spec.small_adapter.resolve() == (SMALL.adapters / spec.name).resolve()
