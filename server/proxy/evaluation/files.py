"""What a comparison leaves in its folder."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from loraloom.compose.files import write_whole
from loraloom.server.proxy.evaluation.errors import InvalidEvaluation
from loraloom.server.proxy.evaluation.outcome import Measured
from loraloom.server.proxy.evaluation.picture import picture
from loraloom.server.proxy.evaluation.plan import Plan
from loraloom.server.proxy.evaluation.result import Result

RESULT, REPORT, ANSWERS = "result.json", "report.png", "answers.jsonl"


def refuse_complete(out: Path) -> None:
    """Keep what took hours.

    Raises:
        InvalidEvaluation: the folder holds a complete result.
    """
    try:
        complete = json.loads((out / RESULT).read_bytes())["complete"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # nothing that anybody could want
        return
    if complete is True:
        raise InvalidEvaluation(f"{out} holds a complete comparison: choose another --out, or remove its {RESULT}")


def write(result: Result, plan: Plan, measured: Measured, out: Path) -> None:
    """Write the figures, every answer that they come from, and the picture, each in one step.

    Raises:
        OSError: the folder cannot be written.
    """
    write_whole(out / RESULT, result.text())
    write_whole(out / ANSWERS, "".join(_lines(plan, measured)))
    aside = out / f".{REPORT}.part"
    aside.write_bytes(picture(result))
    os.replace(aside, out / REPORT)


def _lines(plan: Plan, measured: Measured) -> Iterator[str]:
    """One line an answer."""
    tasks = {task.name: task for task in plan.tasks}
    for each in measured.rounds:
        task = tasks[each.task]
        questions = task.questions[each.first : each.first + len(each.asked.answers)]
        for question, answer in zip(questions, each.asked.answers, strict=True):
            right = question.accepts(answer.text, task.spec.matcher, cut=answer.cut)
            asked = {"task": task.name, "arm": each.arm, "prompt": question.prompt, "expected": question.expected}
            given = {"answer": answer.text, "cut": answer.cut, "tokens": answer.output_tokens, "right": right}
            yield json.dumps({**asked, **given}, ensure_ascii=False) + "\n"
