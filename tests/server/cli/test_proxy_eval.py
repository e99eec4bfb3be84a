"""`loraloom proxy eval`."""

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from loraloom.server.cli import proxy_eval
from loraloom.server.proxy.evaluation.plan import Plan
from loraloom.server.proxy.evaluation.result import Result
from loraloom.server.proxy.evaluation.rounds import Tell
from loraloom.server.proxy.evaluation.words import conclusion
from tests.server.cli.conftest import Loraloom
from tests.server.proxy.evaluation.described import described, found, plan_of, written


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return written(tmp_path, described(tmp_path))


@pytest.fixture
def served_by_nobody(monkeypatch: pytest.MonkeyPatch) -> Result:
    """What every comparison finds here; how servers are asked has tests of its own."""
    result = found(plan_of(questions=60))

    def evaluated(plan: Plan, out: Path, environment: Mapping[str, str], tell: Tell) -> Result:
        tell("[1/3] large")
        assert (len(plan.tasks), environment["HOME"]) == (2, os.environ["HOME"])
        return result

    monkeypatch.setattr(proxy_eval, "evaluate", evaluated)
    return result


def test_check_starts_nothing_and_says_what_would_be_done(loraloom: Loraloom, spec: Path) -> None:
    outcome = loraloom("proxy", "eval", spec, "--check")
    assert outcome.status == 0
    assert outcome.out.splitlines() == [
        "2 tasks with 12 questions; 3 servers, one after the other:",
        "  large: large alone, large, 2 examples in the prompt, large, tuned directly",
        "  proxy: proxy-tuned, alpha 0.5, proxy-tuned, alpha 1, proxy-tuned, alpha 1.5",
        "  small: small alone, small, tuned",
        "96 answers of at most 64 tokens. Everything fits.",
    ]
    assert not Path("proxy-eval").exists()


@pytest.mark.parametrize("words", [[], ["--check"]])
def test_what_does_not_fit_is_told_at_once(loraloom: Loraloom, spec: Path, words: list[str]) -> None:
    (spec.parent / "sql.jsonl").unlink()
    outcome = loraloom("proxy", "eval", spec, *words)
    assert outcome.status == 1
    assert outcome.err.startswith("loraloom: this cannot be evaluated:\n  sql: ")
    assert not Path("proxy-eval").exists()


def test_tables_and_conclusion(loraloom: Loraloom, spec: Path, served_by_nobody: Result) -> None:
    outcome = loraloom("proxy", "eval", spec)
    assert outcome.status == 0
    assert outcome.err == "[1/3] large\n"
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["TASK", "ARM", "RIGHT", "95%", "N", "TOKENS", "IN", "OUT", "CUT", "TOKENS/S"]
    assert sum(line.startswith("mean of tasks") for line in lines) == 8 + 1
    right = f" {100 * served_by_nobody.tasks['date']['proxy~1'].accuracy.value:.1f}% "
    assert any(line.startswith("date") and "proxy-tuned, alpha 1 " in line and right in line for line in lines)
    assert any(line.startswith("large, tuned directly") and " x 1.0" in line for line in lines)
    assert f"{conclusion(served_by_nobody)}." in lines
    assert lines[-1] == "proxy-eval/result.json, proxy-eval/report.png"


def test_means_say_how_many_tasks_they_are_of(loraloom: Loraloom, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, without = plan_of(), plan_of(large_adapter=None)
    some = found(replace(plan, tasks=(plan.tasks[0], without.tasks[1])))
    monkeypatch.setattr(proxy_eval, "evaluate", lambda *_: some)
    lines = loraloom("proxy", "eval", spec).out.splitlines()
    assert sum(line.startswith("mean of 1 of 2 tasks ") for line in lines) == 8


def test_json(loraloom: Loraloom, spec: Path, served_by_nobody: Result) -> None:
    outcome = loraloom("proxy", "eval", spec, "--json", "--out", "elsewhere")
    assert (outcome.status, outcome.out) == (0, served_by_nobody.text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order(
    loraloom: Loraloom, spec: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    unwound: list[bool] = []

    def killed(*_: object) -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            unwound.append(True)

    monkeypatch.setattr(proxy_eval, "evaluate", killed)
    outside = signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may ignore it, as nohup does
    try:
        with pytest.raises(SystemExit) as caught:
            loraloom("proxy", "eval", spec)
        assert (caught.value.code, unwound) == (128 + number, [True])
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, outside)


def test_nohup_keeps_it_running(
    loraloom: Loraloom, spec: Path, served_by_nobody: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hung_up(*_: object) -> Result:
        os.kill(os.getpid(), signal.SIGHUP)
        return served_by_nobody

    monkeypatch.setattr(proxy_eval, "evaluate", hung_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert loraloom("proxy", "eval", spec).status == 0
    finally:
        signal.signal(signal.SIGHUP, before)
