import pytest

from tests.bench.load import Answer
from tests.bench.lora_overhead import BASE, TOKENS, Case, mean_timing, timing


def test_prefill_ends_when_the_last_answer_begins_and_decoding_is_timed_while_all_go_on() -> None:
    early = Answer("abcd", 0.0, (1.0, 2.0, 2.5, 3.0))
    late = Answer("abcd", 0.1, (2.0, 2.6, 3.2, 9.0))
    measured = timing([early, late])
    assert measured.prefill == 2.0
    assert measured.decode == pytest.approx(0.5)  # 0.5 twice of the one, 0.6 of the other


def test_one_token_has_no_decode_step() -> None:
    assert timing([Answer("a", 0.0, (1.0,))]).decode == 0.0


def test_adapters_take_turns_in_a_batch() -> None:
    assert Case(2, 4).models == ["r8-0", "r8-1", "r8-0", "r8-1"]
    assert Case(0, 2).models == [BASE, BASE]
    assert Case(4, 8, rank=16).base == Case(0, 8)


def test_the_mean_step_does_not_depend_on_how_tokens_are_bundled() -> None:
    early, late = Answer("abcd", 0.0, (1.0, 2.0, 2.5, 3.0)), Answer("abcd", 0.1, (2.0, 2.6, 3.2, 9.0))
    bundled = Answer("abcd", 0.1, (2.0, 9.0))
    assert mean_timing([early, late]) == mean_timing([early, bundled])
    assert mean_timing([early, late]).prefill == timing([early, late]).prefill
    assert mean_timing([early, late]).decode == pytest.approx(7 / (TOKENS - 1))
