"""What a comparison says."""

from dataclasses import replace

from loraloom.server.proxy.evaluation.arms import arms_of
from loraloom.server.proxy.evaluation.gap import Closed, Gain
from loraloom.server.proxy.evaluation.outcome import Measured
from loraloom.server.proxy.evaluation.words import conclusion, details, mean_name, points, share
from tests.server.proxy.evaluation.described import CHANCE, found, measured_of, plan_of


def test_the_conclusion_is_of_alpha_1() -> None:
    plan = plan_of(questions=100)
    result = found(plan, measured_of(plan, chances={**CHANCE, "proxy~1": 0.5, "proxy~1.5": 0.8}))
    assert result.gap is not None
    assert share(result.gap.headline) in conclusion(result)
    assert conclusion(result).startswith("At alpha 1, proxy-tuning closes 5")
    text = " ".join(details(result))
    assert "the large model alone" in text
    assert "The best one for all tasks, alpha 1.5, closes" in text
    assert "optimistic" in text


def test_it_says_when_the_tuned_small_model_alone_does_better() -> None:
    plan = plan_of(questions=100)
    result = found(plan, measured_of(plan, chances={**CHANCE, "small-tuned": 1.0, "proxy~1": 0.0}))
    assert "The tuned small model alone answers 100%: steering gives -100.0 points (-100.0 to -100.0)." in list(
        details(result)
    )


def test_it_says_when_that_does_as_well() -> None:
    plan = plan_of(questions=20)
    result = found(plan, measured_of(plan, chances={**CHANCE, "small-tuned": 1.0, "proxy~1": 1.0}))
    assert "The tuned small model alone answers 100%: steering gives +0.0 points (+0.0 to +0.0)." in list(
        details(result)
    )


def test_means_say_which_tasks_they_are_of() -> None:
    plan, without = plan_of(), plan_of(large_adapter=None)
    assert mean_name(found(plan)) == "mean"
    assert next(details(found(plan))).startswith("It answers ")
    some = found(replace(plan, tasks=(plan.tasks[0], without.tasks[1])))
    assert mean_name(some) == "mean of 1 of 2"
    assert next(details(some)).startswith("On the 1 of 2 tasks that every arm took, it answers ")


def test_nothing_is_optimistic_where_alpha_1_is_the_best() -> None:
    plan = plan_of(questions=40)
    best = {**CHANCE, "proxy~1": 1.0, "proxy~0.5": 0.5, "proxy~1.5": 0.5}
    assert not any("optimistic" in text for text in details(found(plan, measured_of(plan, chances=best))))


def test_a_gain_in_words() -> None:
    assert points(Gain(0.051, -0.0101, 0.12)) == "+5.1 points (-1.0 to +12.0)"
    assert points(Gain(-0.0001, -0.0001, 0.0)) == "+0.0 points (+0.0 to +0.0)"


def test_without_a_gap() -> None:
    plan = plan_of()
    no_gain = found(plan, measured_of(plan, chances={**CHANCE, "large": 0.0, "large-tuned": 0.0}))
    assert conclusion(no_gain) == "The gap is too small to measure: direct tuning gains 0 points"
    assert not any("optimistic" in text for text in details(no_gain))
    large = measured_of(plan, [arm for arm in arms_of(plan.spec) if arm.server == "large"])
    partial = found(plan, Measured(large.rounds), complete=False)
    assert conclusion(partial) == "What proxy-tuning closes of the gap is undefined"
    assert list(details(partial)) == []


def test_a_share_in_words() -> None:
    assert share(Closed(0.5, 0.714, 0.6, 0.805)) == "71% (60 to 80)"
    assert share(Closed(0.5, -0.1)) == "-10%"
    assert share(Closed(0.02, None)) == "undefined (the gap is 2 points, 5 are needed)"
