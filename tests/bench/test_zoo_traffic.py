from tests.bench.zoo_store import names
from tests.bench.zoo_traffic import POPULARITIES, REQUESTS, SAME, SLOTS


def test_all_traffic_has_the_same_prompts() -> None:
    rounds = [
        traffic.bodies(size, number) for traffic in (SAME, *POPULARITIES) for size in (10, 100) for number in (0, 1)
    ]
    prompts = [[body["prompt"] for body in bodies] for bodies in rounds]
    assert all(each == prompts[0] for each in prompts)
    assert len(set(prompts[0])) == REQUESTS


def test_the_first_traffic_is_the_same_for_every_store_and_round() -> None:
    assert SAME.bodies(10, 0) == SAME.bodies(1000, 5)
    assert [body["model"] for body in SAME.bodies(10, 0)] == names(SLOTS) * 2


def test_the_others_ask_for_adapters_of_the_store_and_change_with_the_round() -> None:
    for traffic in POPULARITIES:
        asked = [{body["model"] for body in traffic.bodies(100, number)} for number in (0, 1)]
        assert asked[0] != asked[1]
        assert asked[0] | asked[1] <= set(names(100))
        assert {body["model"] for body in traffic.bodies(1, 0)} == set(names(1))
