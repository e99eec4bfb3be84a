from tests.bench.arrivals import USUAL, Stream, arrivals

PROMPTS = range(300, 2000)


def test_traffic_is_the_same_for_the_same_seed_and_uneven() -> None:
    coming = arrivals(3, USUAL, PROMPTS)
    assert coming == arrivals(3, USUAL, PROMPTS)
    assert coming != arrivals(4, USUAL, PROMPTS)
    assert [each.at for each in coming] == sorted(each.at for each in coming)
    assert len({len(each.prompt) for each in coming}) > USUAL.adapters
    assert len({each.tokens for each in coming}) > USUAL.adapters


def test_prompts_consist_of_the_given_tokens_and_adapters_take_turns() -> None:
    coming = arrivals(0, Stream(requests=6, adapters=4, rank=16), PROMPTS)
    assert {token for each in coming for token in each.prompt} <= set(PROMPTS)
    assert [each.model for each in coming] == ["r16-0", "r16-1", "r16-2", "r16-3", "r16-0", "r16-1"]
