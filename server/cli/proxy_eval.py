"""`loraloom proxy eval`: the published comparison of proxy-tuning, from a description to figures and a picture."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from loraloom.adapters.scanner import number_text
from loraloom.server.cli.tables import table
from loraloom.server.proxy.evaluation.arms import LARGE
from loraloom.server.proxy.evaluation.files import REPORT, RESULT
from loraloom.server.proxy.evaluation.plan import Plan, planned
from loraloom.server.proxy.evaluation.result import Result, Score
from loraloom.server.proxy.evaluation.run import evaluate
from loraloom.server.proxy.evaluation.servers import servers_of
from loraloom.server.proxy.evaluation.words import conclusion, details, mean_name, share

MEAN = "mean of tasks"
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def run(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Check a description, and do what it says."""
    plan = planned(options.spec, _tell)
    for note in plan.notes:
        _tell(f"note: {note}")
    if options.check:
        print(_plan_text(plan))
        return 0
    with _ended_in_order():
        result = evaluate(plan, options.out, os.environ, _tell)
    if options.json:
        print(result.text(), end="")
        return 0
    _print(result, options.out)
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP unless `nohup` has it ignored, unwind as Ctrl-C does: no server is left behind."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    numbers = [each for each in _ENDING if signal.getsignal(each) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _plan_text(plan: Plan) -> str:
    servers = servers_of(plan.spec, plan.models)
    questions = sum(len(task.questions) for task in plan.tasks)
    asked = sum(len(task.questions) for each in servers for arm in each.arms for task in plan.tasks if arm.takes(task))
    lines = [f"{each.name}: {', '.join(arm.label for arm in each.arms)}" for each in servers]
    head = f"{len(plan.tasks)} tasks with {questions} questions; {len(servers)} servers, one after the other:"
    return "\n  ".join([head, *lines]) + f"\n{asked} answers of at most {plan.spec.max_tokens} tokens. Everything fits."


def _print(result: Result, out: Path) -> None:
    head = ("TASK", "ARM", "RIGHT", "95%", "N", "TOKENS IN", "OUT", "CUT", "TOKENS/S")
    rows = [_row(task, result.labels[arm], each[arm]) for task, each in _sections(result) for arm in each]
    table(head, rows)
    if result.speeds:
        print()
        table(("ARM", "TOKENS/S, FIXED LENGTH", "SLOWEST TO FASTEST", "TO LARGE ALONE"), _speeds(result))
    if result.gaps:
        print()
        table(("TASK", "CLOSED AT ALPHA 1", "AT THE BEST ALPHA", "WHICH"), _gaps(result))
    print("", f"{conclusion(result)}.", *details(result), f"{out / RESULT}, {out / REPORT}", sep="\n")


def _sections(result: Result) -> Iterator[tuple[str, Mapping[str, Score]]]:
    yield from result.tasks.items()
    if len(result.tasks) > 1:
        yield MEAN if len(result.shared) == len(result.tasks) else f"{mean_name(result)} tasks", result.means


def _row(task: str, label: str, score: Score) -> tuple[str, ...]:
    right = score.accuracy
    return (
        task,
        label,
        f"{100 * right.value:.1f}%",
        f"{100 * right.low:.1f} to {100 * right.high:.1f}",
        str(score.n),
        f"{score.prompt_tokens:.0f}",
        f"{score.output_tokens:.1f}",
        f"{100 * score.cut:.0f}%",
        f"{score.tokens_per_second:.1f}",
    )


def _speeds(result: Result) -> list[tuple[str, ...]]:
    base = result.speeds.get(LARGE)
    return [
        (
            result.labels[key],
            f"{speed.median:.1f}",
            f"{speed.low:.1f} to {speed.high:.1f}",
            f"x {speed.median / base.median:.2f}" if base else "-",
        )
        for key in result.labels
        if (speed := result.speeds.get(key)) is not None
    ]


def _gaps(result: Result) -> list[tuple[str, ...]]:
    gaps = [*result.gaps.items(), *([(MEAN, result.gap)] if result.gap and len(result.gaps) > 1 else [])]
    return [(name, share(gap.headline), share(gap.best), number_text(gap.best_alpha)) for name, gap in gaps]
