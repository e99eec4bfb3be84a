"""The held-out examples, and who is compared on them."""

import pytest

from loraloom.compose import plan as planning
from loraloom.compose.evaluation import SAMPLES, Searched, samples, tallied
from loraloom.compose.plan import Plan
from loraloom.compose.recorder import Choice
from loraloom.compose.search import Found
from tests.compose.fakes import BowlBackend, NumberEncoder, bowl_plan
from tests.compose.test_trials import trial

BEST = [(0.5, 0.0, 0.7)] * 12
WEIGHTS = (0.5, 0.7)


def searched(plan: Plan) -> list[Searched]:
    """Every search found the best weights of the adapters 0 and 2, of which 2 is the better one."""
    choice = Choice(plan.pool.names, (0, 2))
    return [Searched(fold, choice, Found(trial(), WEIGHTS, 1)) for fold in plan.holdout.folds]


def test_every_system_on_every_held_out_example() -> None:
    plan = bowl_plan(6, 3, holdout=0.5)
    tallies = tallied(plan, searched(plan), BowlBackend(BEST))
    losses = {system: tally.held_out().loss for system, tally in tallies.items()}
    assert set(losses) == {"composition", "nothing", "best_single", "mean", "in_context"}
    assert losses["composition"] == 1
    assert losses["nothing"] == losses["in_context"] == 1 + 0.25 + 0.49
    assert losses["best_single"] == 1 + 0.25 + 0.09
    assert losses["mean"] == 1 + 0.04  # of the two that it may use
    assert all(len(tally.measured) == 3 for tally in tallies.values())
    assert tallies["best_single"].detail == "2@1"
    composition = tallies["composition"].held_out()
    assert (composition.exact, composition.low, composition.high, composition.prompt_tokens) == (1, 1, 1, 1)


def test_what_examples_in_the_prompt_cost() -> None:
    plan = bowl_plan(6, 3, holdout=0.5)
    in_context = tallied(plan, searched(plan), BowlBackend(BEST))["in_context"].held_out()
    assert (in_context.prompt_tokens, in_context.detail) == (1 + 3 * 10, "3 examples in the prompt")


def test_examples_that_the_context_does_not_hold_are_left_out() -> None:
    plan = bowl_plan(6, 3, NumberEncoder(context=20), holdout=0.5)
    tally = tallied(plan, searched(plan), BowlBackend(BEST))["in_context"]
    assert tally.measured == []
    assert tally.detail == "left out: too long"


def test_prompts_of_more_tokens_than_a_job_may_have_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MAX_TOKENS", 50)
    plan = bowl_plan(6, 3, holdout=0.5)
    tally = tallied(plan, searched(plan), BowlBackend(BEST))["in_context"]
    assert tally.measured == []
    assert tally.detail.startswith("left out: the examples have more than 50 tokens")


def test_what_is_truncated_is_what_is_judged() -> None:
    plan = bowl_plan(6, 3, holdout=0.5, publish={"rank": 2})
    tallies = tallied(plan, searched(plan), BowlBackend(BEST))
    assert tallies["composition"].held_out().loss == tallies["nothing"].held_out().loss


def test_what_needs_no_truncation_is_judged_as_it_is() -> None:
    for rank in (8, None, "auto"):
        plan = bowl_plan(6, 3, holdout=0.5, publish={"rank": rank})
        assert tallied(plan, searched(plan), BowlBackend(BEST))["composition"].held_out().loss == 1


def test_what_is_one_of_its_rivals_has_its_scores_to_the_last_bit() -> None:
    plan = bowl_plan(6, 3, holdout=0.5)
    (search,) = searched(plan)
    same = Searched(search.fold, search.choice, Found(trial(), (0.0, 1.0), 1))
    tallies = tallied(plan, [same], BowlBackend(BEST))
    assert tallies["composition"].measured == tallies["best_single"].measured


def test_leave_one_out_judges_each_example_by_the_search_that_did_not_see_it() -> None:
    plan = bowl_plan(5, 3, holdout="leave-one-out")
    tallies = tallied(plan, searched(plan), BowlBackend(BEST))
    assert all(len(tally.measured) == 5 for tally in tallies.values())
    assert tallies["in_context"].detail == "4 examples in the prompt"


def test_samples_are_held_out_examples_with_their_answers() -> None:
    for holdout, count in ((0.5, SAMPLES), ("leave-one-out", SAMPLES), (0.2, 2)):
        plan = bowl_plan(12, 3, holdout=holdout)
        shown = samples(plan, searched(plan), BowlBackend(BEST))
        held = {plan.holdout.examples[index].prompt for fold in plan.holdout.folds for index in fold.held}
        assert len(shown) == count
        assert {sample.prompt for sample in shown} <= held
        assert shown[0].outputs == {"nothing": "0", "best_single": "1", "composition": "1"}
        assert shown[0].expected == "x"
