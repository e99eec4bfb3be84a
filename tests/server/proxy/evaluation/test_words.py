"""What a comparison says."""

from loraloom.server.proxy.evaluation.arms import arms_of
from loraloom.server.proxy.evaluation.gap import Closed
from loraloom.server.proxy.evaluation.outcome import Measured
from loraloom.server.proxy.evaluation.words import conclusion, details, share
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
    assert "The tuned small model alone answers 100%: steering gives 100.0 points less." in list(details(result))


def test_it_says_when_that_does_as_well() -> None:
    plan = plan_of(questions=20)
    result = found(plan, measured_of(plan, chances={**CHANCE, "small-tuned": 1.0, "proxy~1": 1.0}))
    assert "The tuned small model alone answers 100%: steering gives no more and no less." in list(details(result))


def test_without_a_gap() -> None:
    plan = plan_of()
    no_gain = found(plan, measured_of(plan, chances={**CHANCE, "large": 0.0, "large-tuned": 0.0}))
    assert conclusion(no_gain) == "There is no gap to close: direct tuning gains 0 points"
    assert not any("optimistic" in text for text in details(no_gain))
    large = measured_of(plan, [arm for arm in arms_of(plan.spec) if arm.server == "large"])
    partial = found(plan, Measured(large.rounds), complete=False)
    assert conclusion(partial) == "What proxy-tuning closes of the gap is undefined"
    assert list(details(partial)) == []


def test_a_share_in_words() -> None:
    assert share(Closed(0.5, 0.714, 0.6, 0.805)) == "71% (60 to 80)"
    assert share(Closed(0.5, -0.1)) == "-10%"
    assert share(Closed(0.02, None)) == "undefined (the gap is 2 points, 5 are needed)"
