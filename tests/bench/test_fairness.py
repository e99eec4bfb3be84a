"""What the flood asks for; its servers are real and start only in the benchmark."""

from itertools import islice

from tests.bench.fairness import COLDS, FLOOD, FULL, LONGEST, MEMORY, SEATS, SHORT, SHORTEST, SLOTS, WIDTH, flood_bodies
from tests.bench.fairness_figures import FAIR, IDLE, OWN, ROUNDS, VLLMS


def test_the_flood_asks_for_all_its_adapters_with_answers_of_all_lengths() -> None:
    bodies = list(islice(flood_bodies(), 2000))
    asked = {(body["model"], body["max_tokens"]) for body in bodies}
    assert {tokens for _, tokens in asked} == set(range(SHORTEST, LONGEST + 1))
    assert {model for model, _ in asked} == set(FLOOD)
    assert all({tokens for name, tokens in asked if name == model} >= {SHORTEST, LONGEST} for model in FLOOD)


def test_the_flood_is_more_than_the_engine_takes_and_cold_adapters_are_cold() -> None:
    assert WIDTH > 4 * SEATS
    assert len(FLOOD) > SLOTS
    assert len({OWN, *FLOOD}) < MEMORY < len({OWN, *FLOOD, *COLDS}) - SLOTS


def test_only_the_full_form_compares_with_vllm_and_decides() -> None:
    assert {IDLE, FAIR} < set(SHORT.phases) < set(FULL.phases)
    assert VLLMS not in SHORT.phases
    assert SHORT.rounds < ROUNDS <= FULL.rounds
