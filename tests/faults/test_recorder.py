import pytest

from tests.faults.errors import CampaignError
from tests.faults.recorder import ASK, GOOD, PUBLISH, READY, WRONG, Recorder, Seen, counts, until


def recorder(*seen: tuple[float, str, str, str]) -> Recorder:
    return Recorder([Seen(began, began + 1, who, about, how) for began, who, about, how in seen])


def test_only_good_answers_to_later_requests_show_that_service_is_back() -> None:
    some = recorder((1, ASK, "a", GOOD), (5, ASK, "a", "503 engine_unavailable"), (6, ASK, "a", GOOD))
    assert [each.began for each in some.good_since(2, ASK)] == [6]
    assert not some.good_since(2, PUBLISH)


@pytest.mark.parametrize("missing", range(4))
def test_all_is_back_when_every_model_answers_and_publishing_and_ready_do(missing: int) -> None:
    everything = [(5, ASK, "a", GOOD), (5, ASK, "b", GOOD), (5, PUBLISH, "", GOOD), (5, READY, "", GOOD)]
    assert recorder(*everything).is_back(5, {"a", "b"})
    assert not recorder(*everything).is_back(6, {"a", "b"})
    assert not recorder(*everything[:missing], *everything[missing + 1 :]).is_back(5, {"a", "b"})


def test_what_ended_in_a_time_is_counted_by_how_it_ended() -> None:
    some = recorder((0, ASK, "a", GOOD), (3, ASK, "a", "broken off"), (4, ASK, "b", GOOD), (4, ASK, "b", WRONG))
    assert counts(some.between(2, 5), ASK) == {"broken off": 1, GOOD: 1, WRONG: 1}
    assert counts(some.between(2, 5), READY) == {}
    assert [each.about for each in some.wrong] == ["b"]


async def test_waiting_ends_with_the_check_or_says_what_did_not_come() -> None:
    assert await until(lambda: True, 0, "it") < 60
    with pytest.raises(CampaignError, match="the sun: not within 0 s"):
        await until(lambda: False, 0, "the sun")
