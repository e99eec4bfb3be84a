"""What a job will do, and what is refused before a model is loaded."""

import json
import sys
from pathlib import Path

import pytest

from loraloom.adapters.errors import NameTaken
from loraloom.compose import plan as planning
from loraloom.compose.errors import InvalidExamples, InvalidSpec
from loraloom.compose.plan import with_examples
from loraloom.compose.spec import spec_from
from tests.compose.conftest import EXAMPLES, Planned

CHOICES = [{**example, "choices": [example["completion"], " known"]} for example in EXAMPLES[:3]]


def test_a_plan_counts_its_trials(plan: Planned) -> None:
    one = plan(holdout=0.4)
    assert (one.holdout.seen, one.holdout.held, one.adapters) == (3, 2, 3)
    assert one.trials == 3 + 2 + 8 + 1
    assert plan(holdout="leave-one-out").trials == 6 * one.trials
    assert plan(holdout=0.4, pool={"preselect": 2}).trials == 13


def test_examples_become_rows(plan: Planned) -> None:
    task = plan().task
    assert len(task.rows) == len(EXAMPLES)
    choices = plan(examples=CHOICES, objective="choice").task
    assert [len(question.rows) for question in choices.questions] == [2, 2, 2]
    assert {question.right for question in choices.questions} == {0}


def test_choices_are_needed_where_they_count(plan: Planned) -> None:
    with pytest.raises(InvalidExamples, match='2 examples have no "choices"'):
        plan(examples=[*EXAMPLES[3:], *CHOICES], objective="choice")


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (EXAMPLES[:1], "give 2 at the least"),
        ([*EXAMPLES, EXAMPLES[0]], "examples 1 and 6 ask the same"),
        ([*EXAMPLES, {"prompt": "select " * 200, "completion": "date"}], "the model's context is 128"),
        ([*EXAMPLES, {"prompt": "select", "completion": "date " * 200}], "the model's context is 128"),
    ],
)
def test_examples_that_are_refused(plan: Planned, examples: list[object], message: str) -> None:
    with pytest.raises(InvalidExamples, match=message):
        plan(examples=examples)


def test_the_hold_out_may_be_a_file(tmp_path: Path, plan: Planned) -> None:
    path = tmp_path / "held.jsonl"
    path.write_text("\n".join(map(json.dumps, EXAMPLES[3:])))
    spec = with_examples(spec_from({"examples": EXAMPLES[:3], "holdout": str(path)}))
    path.unlink()
    held = plan(examples=spec.examples, holdout=spec.holdout).holdout
    assert (held.seen, held.held, held.kind) == (3, 2, "examples of its own")


def test_nothing_heavy_is_imported_for_a_refusal(tmp_path: Path) -> None:
    """A bad job is refused at once: torch and nevergrad take seconds."""
    import subprocess

    code = (
        "import sys; from loraloom.compose.plan import planned; from loraloom.compose.spec import spec_from\n"
        "from loraloom.compose.errors import ComposeError\n"
        "try: planned(spec_from({'examples': [{'prompt': 'a', 'completion': 'b'}]}), None)\n"
        "except ComposeError: print(sorted({'torch', 'nevergrad', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_name_that_is_taken_is_told_before_anything_is_done(plan: Planned) -> None:
    with pytest.raises(NameTaken):
        plan(name="ORG/c")
    assert plan(name="ORG/c", publish="never").spec.name == "ORG/c"


def test_a_server_may_hold_less_than_the_model(plan: Planned) -> None:
    whole = plan()
    assert whole.within(None) is whole.within(129) is whole
    assert whole.within(128).encoder.context == 127, "a request asks for one token more"
    longest = max(map(len, whole.task.rows))
    assert whole.within(longest + 1).encoder.context == longest
    with pytest.raises(
        InvalidExamples, match=f"has {longest} tokens with its answer, and the server holds {longest - 1}"
    ):
        whole.within(longest)


def test_a_part_of_the_pool(plan: Planned) -> None:
    assert plan().of([0, 2]).pool.names == ("a@1", "org/c@1")


def test_what_is_not_installed_is_told(plan: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "find_spec", lambda name: None if name == "nevergrad" else object())
    with pytest.raises(InvalidSpec, match=r"nevergrad is not installed: `pip install 'loraloom\[compose\]'`"):
        plan()


def test_the_choices_of_an_example_share_its_prompt(plan: Planned) -> None:
    for question in plan(examples=CHOICES, objective="choice").task.questions:
        assert len({id(row.prompt) for row in question.rows}) == 1


def test_all_rows_together_have_so_many_tokens(plan: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = sum(map(len, plan().task.rows))
    monkeypatch.setattr(planning, "MAX_TOKENS", tokens)
    assert plan().task
    monkeypatch.setattr(planning, "MAX_TOKENS", tokens - 1)
    with pytest.raises(InvalidExamples, match=f"more than {tokens - 1} tokens, the prompt counted with each"):
        plan()
