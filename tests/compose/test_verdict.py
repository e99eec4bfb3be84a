from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloom.compose.result import Comparison, Measured, System, Verdict
from loraloom.compose.verdict import RIVALS, WORTH, compared, judged, scored

Generator = np.random.Generator
Pairs = tuple[list[Measured], list[Measured]]

JOBS = 200
CHANCE = 19
"""Jobs of 200 that a test with a level of exactly 5% does not exceed in 99.8% of such counts."""

BEATEN = Comparison(2.0, 1.5, 2.5, 2.0**-5)


def losses(ours: object, theirs: object, tokens: object) -> Pairs:
    return tuple(  # type: ignore[return-value]
        [Measured(float(rate * count), float(count)) for rate, count in zip(rates, tokens, strict=True)]  # type: ignore[call-overload]
        for rates in (ours, theirs)
    )


def answers(ours: object, theirs: object) -> Pairs:
    return tuple([Measured(float(each), 1.0) for each in side] for side in (ours, theirs))  # type: ignore[return-value, attr-defined]


def normal(rng: Generator, n: int) -> Pairs:
    hard, tokens = rng.lognormal(0.5, 0.4, n), rng.integers(2, 20, n)
    return losses(hard + rng.normal(0, 0.3, n), hard + rng.normal(0, 0.3, n), tokens)


def lognormal(rng: Generator, n: int) -> Pairs:
    return losses(rng.lognormal(0, 1, n), rng.lognormal(0, 1, n), rng.integers(2, 20, n))


def laplace(rng: Generator, n: int) -> Pairs:
    return losses(2 + rng.laplace(0, 0.3, n), np.full(n, 2.0), rng.integers(2, 20, n))


def cauchy(rng: Generator, n: int) -> Pairs:
    return losses(2 + rng.standard_cauchy(n), 2 + rng.standard_cauchy(n), rng.integers(2, 20, n))


def right_answers(rng: Generator, n: int) -> Pairs:
    return answers(rng.random(n) < 0.6, rng.random(n) < 0.6)


NULLS: dict[str, Callable[[Generator, int], Pairs]] = {
    each.__name__: each for each in (normal, lognormal, laplace, cauchy, right_answers)
}


def against_best(pairs: Pairs, higher: bool, seed: int = 0) -> dict[System, Comparison]:
    """A composition that beats all others by far, but for the best single adapter."""
    return {"nothing": BEATEN, "mean": BEATEN, "best_single": compared(*pairs, higher, seed)}


@pytest.mark.parametrize("n", [5, 8, 12, 30])
@pytest.mark.parametrize("null", NULLS)
def test_chance_is_seldom_taken_for_a_gain_when_one_rival_is_as_good(null: str, n: int) -> None:
    """The hardest case: only one comparison stands between the composition and the verdict."""
    rng, higher = np.random.default_rng([n, len(null)]), null == "right_answers"
    verdicts = [judged(against_best(NULLS[null](rng, n), higher), n).name for _ in range(JOBS)]
    assert verdicts.count("better") <= CHANCE


@pytest.mark.parametrize("n", [5, 8, 12, 30])
def test_without_any_effect_at_most_one_job_in_twenty_is_called_better(n: int) -> None:
    rng, better = np.random.default_rng(n), 0
    for _ in range(JOBS):
        hard, tokens = rng.lognormal(0.5, 0.4, n), rng.integers(2, 20, n)
        ours, *others = (hard + rng.normal(0, 0.3, n) for _ in range(4))
        comparisons = {
            rival: compared(*losses(ours, theirs, tokens), higher_is_better=False)
            for rival, theirs in zip(RIVALS, others, strict=True)
        }
        better += judged(comparisons, n).name == "better"
    assert better <= JOBS * 0.05


@pytest.mark.parametrize("n", [12, 30])
def test_a_gain_that_is_there_is_seldom_ruled_out(n: int) -> None:
    rng, ruled_out = np.random.default_rng(n), 0
    for _ in range(JOBS):
        tokens = rng.integers(2, 20, n)
        pairs = losses(2 + rng.normal(0, 0.3, n), np.full(n, 2 + WORTH), tokens)
        ruled_out += judged(against_best(pairs, higher=False), n).name == "not better"
    assert ruled_out <= CHANCE


@pytest.mark.parametrize("n", [5, 8, 12, 30])
def test_a_gain_in_right_answers_is_seldom_ruled_out(n: int) -> None:
    """Of ten answers one more is right: with few examples often none of those is among them."""
    rng = np.random.default_rng(n)
    drawn = (answers(rng.random(n) < 0.6, rng.random(n) < 0.5) for _ in range(JOBS))
    assert [judged(against_best(each, higher=True), n).name for each in drawn].count("not better") <= CHANCE


@pytest.mark.parametrize(("effect", "n", "least"), [(0.6, 20, 0.97), (0.3, 20, 0.75), (0.6, 8, 0.75)])
def test_a_clear_gain_is_seen(effect: float, n: int, least: float) -> None:
    """The effect in nats a token; a difference has a standard deviation of 0.42."""
    rng, better, jobs = np.random.default_rng(n), 0, 100
    for _ in range(jobs):
        ours, theirs = normal(rng, n)
        shifted = [replace(each, value=each.value + effect * each.weight) for each in theirs]
        better += judged(against_best((ours, shifted), higher=False), n).name == "better"
    assert better >= least * jobs


RATES = st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5), st.integers(1, 40)), min_size=1, max_size=12)


@settings(max_examples=30)
@given(RATES)
def test_swapping_the_systems_swaps_the_signs(rows: list[tuple[float, float, int]]) -> None:
    ours, theirs = losses(*zip(*rows, strict=True))
    one, other = compared(ours, theirs, higher_is_better=False), compared(theirs, ours, higher_is_better=False)
    assert one.gain == pytest.approx(-other.gain, abs=1e-12)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
    assert compared(ours, theirs, higher_is_better=True).gain == other.gain


@settings(max_examples=30)
@given(RATES)
def test_a_gain_is_the_difference_of_the_scores(rows: list[tuple[float, float, int]]) -> None:
    ours, theirs = losses(*zip(*rows, strict=True))
    gain = compared(ours, theirs, higher_is_better=False).gain
    assert gain == pytest.approx(scored(theirs)[0] - scored(ours)[0], abs=1e-9)


def test_a_score_is_a_ratio_of_sums() -> None:
    score, low, high = scored([Measured(30.0, 10.0), Measured(2.0, 2.0)])
    assert score == 32 / 12
    assert (low, high) == (1, 3)


def test_the_same_numbers_give_the_same_to_the_bit() -> None:
    ours, theirs = normal(np.random.default_rng(0), 50)
    assert scored(ours) == scored(ours)
    assert compared(ours, theirs, higher_is_better=False) == compared(ours, theirs, higher_is_better=False)
    assert compared(ours, theirs, higher_is_better=False, seed=1) != compared(ours, theirs, higher_is_better=False)


def test_systems_that_did_not_answer_the_same_are_not_compared() -> None:
    with pytest.raises(AssertionError, match="same examples"):
        compared([Measured(1.0, 3.0)], [Measured(1.0, 4.0)], higher_is_better=False)


def comparisons(**others: Comparison) -> dict[System, Comparison]:
    return {"nothing": BEATEN, "best_single": BEATEN, "mean": BEATEN, **others}  # type: ignore[dict-item]


LITTLE = Comparison(0.31, 0.12, 0.55, 0.001)
CHANCY = Comparison(0.05, -0.1, 0.2, 0.2)


def test_better_names_the_closest_rival() -> None:
    verdict = judged(comparisons(best_single=LITTLE), 20, best_single="date@1")
    assert verdict == Verdict(
        "better",
        20,
        "On 20 held-out examples the composition's loss is 0.31 nats a token below that of the best single adapter "
        "(date@1; 95% interval of the gain 0.12 to 0.55).",
    )


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("failing", [replace(LITTLE, p=0.051), replace(LITTLE, low=0.0), CHANCY])
def test_one_rival_that_may_be_as_good_leaves_it_open(rival: System, failing: Comparison) -> None:
    verdict = judged(comparisons(**{rival: failing}), 20)
    assert (verdict.name, str(verdict)) == ("undecidable", "undecidable with 20 examples")
    assert "may be chance" in verdict.reason


@pytest.mark.parametrize("rival", RIVALS)
def test_a_gain_that_is_not_worth_having_is_not_better_however_sure(rival: System) -> None:
    verdict = judged(comparisons(**{rival: Comparison(0.004, 0.002, 0.006, 0.0001)}), 20)
    assert verdict.name == "not better"
    assert "a gain of 0.01 nats a token or more can be ruled out" in verdict.reason


def test_what_is_worth_having_can_be_said() -> None:
    assert judged(comparisons(mean=LITTLE), 20, worth=0.6).name == "not better"
    assert judged(comparisons(mean=LITTLE), 20, worth=0.5).name == "better"


@pytest.mark.parametrize("examples", [1, 2, 20])
@pytest.mark.parametrize("rival", RIVALS)
def test_what_is_the_same_on_all_examples_is_not_better(rival: System, examples: int) -> None:
    ours, _ = normal(np.random.default_rng(0), examples)
    verdict = judged(comparisons(**{rival: compared(ours, ours, higher_is_better=False)}), examples)
    assert verdict.name == "not better"
    assert "exactly as well" in verdict.reason


@pytest.mark.parametrize("examples", [1, 2, 4])
@pytest.mark.parametrize("effect", [-1.0, 3.0])
def test_few_examples_decide_nothing(examples: int, effect: float) -> None:
    ours, _ = normal(np.random.default_rng(0), examples)
    theirs = [replace(each, value=each.value + effect * each.weight) for each in ours]
    verdict = judged(against_best((ours, theirs), higher=False), examples)
    assert verdict.name == "undecidable"
    assert "at least 5 are needed" in verdict.reason


def test_shares_are_told_in_percentage_points() -> None:
    verdict = judged(comparisons(best_single=LITTLE), 20, objective="exact_match")
    assert "share of right answers is 31.0 percentage points above" in verdict.reason
    worse = judged(comparisons(nothing=Comparison(-0.2, -0.3, -0.1, 1.0)), 20, objective="choice")
    assert "share of right answers is 20.0 percentage points below that of the base model alone" in worse.reason


@pytest.mark.parametrize(
    ("in_context", "said"),
    [(CHANCY, "may do as well"), (Comparison(-0.1, -0.3, 0.1, 0.9), "does as well"), (BEATEN, None)],
)
def test_examples_in_the_prompt_are_mentioned_where_they_do_as_well(in_context: Comparison, said: str | None) -> None:
    verdict = judged(comparisons(in_context=in_context), 20)
    assert verdict.name == "better"
    assert ("its prompt" in verdict.reason) == (said is not None)
    assert said is None or said in verdict.reason
