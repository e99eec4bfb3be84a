"""From answers to figures."""

from dataclasses import replace

import pytest

from loraloom.server.proxy.evaluation.arms import arms_of
from loraloom.server.proxy.evaluation.asking import Answer, Asked
from loraloom.server.proxy.evaluation.outcome import Measured
from loraloom.server.proxy.evaluation.rounds import Round
from tests.server.proxy.evaluation.described import found, measured_of, plan_of


def round_of(first: int, texts: list[str], seconds: float, arm: str = "large") -> Round:
    answers = tuple(Answer(text, prompt_tokens=10 + first, output_tokens=4, cut=text == "cut") for text in texts)
    return Round("date", arm, first, Asked(answers, seconds))


def test_a_score() -> None:
    plan = plan_of(("date",), questions=6)
    right = [question.expected for question in plan.tasks[0].questions]
    late = round_of(4, [right[4], "cut"], seconds=1)
    result = found(plan, Measured((late, round_of(2, ["no", "no"], 4), round_of(0, [right[0], right[1]], 2))))
    score = result.tasks["date"]["large"]
    assert (score.accuracy.value, score.n) == (0.5, 6)
    assert score.accuracy.low < 0.5 < score.accuracy.high
    assert (score.prompt_tokens, score.output_tokens, score.cut) == (12, 4, pytest.approx(1 / 6))
    assert score.tokens_per_second == 4  # of 2, 4 and 8
    assert result.means["large"].accuracy.value == 0.5
    assert (list(result.means), result.gaps, result.gap, result.speeds) == (["large"], {}, None, {})


def test_the_matcher_is_the_tasks() -> None:
    plan = plan_of(("date",), questions=1)
    measured = Measured((round_of(0, ["It is date answer 0."], 1),))
    assert found(plan, measured).tasks["date"]["large"].accuracy.value == 0
    (task,) = plan.tasks
    lenient = replace(plan, tasks=(replace(task, spec=task.spec.model_copy(update={"matcher": "contains"})),))
    assert found(lenient, measured).tasks["date"]["large"].accuracy.value == 1


def test_means_are_over_tasks() -> None:
    result = found(plan_of())
    for key, score in result.means.items():
        each = [scores[key] for scores in result.tasks.values()]
        assert score.accuracy.value == pytest.approx(sum(one.accuracy.value for one in each) / 2)
        assert (score.n, score.tokens_per_second) == (80, sum(one.tokens_per_second for one in each) / 2)


def test_the_best_strength_is_that_with_most_right_answers_and_of_equals_the_one_near_1() -> None:
    plan = plan_of(questions=100)
    chances = {"large": 0.1, "large-tuned": 0.9, "proxy~0.5": 0.3, "proxy~1": 0.5, "proxy~1.5": 0.8}
    gap = found(plan, measured_of(plan, chances=chances)).gap
    assert gap is not None
    assert gap.best_alpha == 1.5
    assert gap.headline.share is not None
    assert gap.best.share is not None
    assert 0.4 < gap.headline.share < 0.6 < gap.best.share
    same = found(plan, measured_of(plan, chances={**chances, **dict.fromkeys(list(chances)[2:], 1.0)})).gap
    assert same is not None
    assert same.best_alpha == 1
    assert same.best == same.headline


def test_a_gap_needs_all_three() -> None:
    plan = plan_of()
    arms = {arm.key: arm for arm in arms_of(plan.spec)}
    for left_out in ("large", "proxy~1", "large-tuned"):
        some = [arm for key, arm in arms.items() if key != left_out]
        assert found(plan, measured_of(plan, some)).gap is None
    without = plan_of(large_adapter=None)
    assert found(without).gap is None
    one_task = replace(plan, tasks=(plan.tasks[0], without.tasks[1]))
    result = found(one_task)
    assert list(result.gaps) == ["date"]
    assert result.gap == result.gaps["date"]


def test_means_are_over_the_tasks_that_every_arm_took() -> None:
    plan, without = plan_of(), plan_of(large_adapter=None)
    chances = {"large": 0.2, "large-tuned": 0.9}
    some = replace(plan, tasks=(plan.tasks[0], without.tasks[1]))
    result = found(some, measured_of(some, chances=chances))
    assert result.shared == ("date",)
    assert result.means == result.tasks["date"]
    assert found(without).shared == ("date", "sql")


def test_what_alpha_1_gains() -> None:
    plan = plan_of(questions=100)
    result = found(plan, measured_of(plan, chances={"large": 0.1, "small-tuned": 0.5, "proxy~1": 0.7}))
    assert set(result.gains) == {"large", "small-tuned"}
    for key, gain in result.gains.items():
        assert gain.value == pytest.approx(result.means["proxy~1"].accuracy.value - result.means[key].accuracy.value)
        assert gain.low < gain.value < gain.high
    arms = [arm for arm in arms_of(plan.spec) if arm.key != "proxy~1"]
    assert found(plan, measured_of(plan, arms)).gains == {}


def test_servers_add_up() -> None:
    plan = plan_of()
    parts = [[arm for arm in arms_of(plan.spec) if arm.server == name] for name in ("large", "proxy", "small")]
    measured = Measured()
    for part in parts:
        measured += measured_of(plan, part)
    assert list(found(plan, measured).means) == [arm.key for arm in arms_of(plan.spec)]
    speed = found(plan, measured).speeds["large"]
    assert (speed.low, speed.high) == (min(measured.speeds["large"]), max(measured.speeds["large"]))
    assert speed.median == sorted(measured.speeds["large"])[2]
