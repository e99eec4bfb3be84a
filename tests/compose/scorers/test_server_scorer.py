"""The scorer `server`, with a server that has no model."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from loraloom.adapters.names import parse
from loraloom.compose.errors import InvalidPool, InvalidSpec, ServerLost
from loraloom.compose.scorers import server_scorer
from loraloom.compose.scorers.server_scorer import ServerScorer
from loraloom.compose.scoring import Row, RowScore
from loraloom.compose.spec import Server
from tests.compose.scorers.fake_loraloom import Answer, FakeLoraLoom, log_probability, refused

POOL = ("a@1", "b@2", "c@3")
ROWS = (Row((1, 2), (4, 6)), Row((3,), (5,)), Row((9, 9), (2, 4, 8)))


@pytest.fixture
def fake() -> FakeLoraLoom:
    return FakeLoraLoom()


@pytest.fixture
def scorer(fake: FakeLoraLoom) -> ServerScorer:
    return scorer_of(fake)


def scorer_of(fake: FakeLoraLoom, pool: Sequence[str] = POOL, method: str = "exact", **more: int) -> ServerScorer:
    return ServerScorer(Server(patience=0, concurrency=4), pool, method, client=fake.client(), **more)


def expected(model: str, row: Row) -> RowScore:
    told = [log_probability(model, len(row.prompt) + place, token) for place, token in enumerate(row.answer)]
    return RowScore(pytest.approx(-sum(told)), len(row.answer), all(token % 2 == 0 for token in row.answer))


def test_scores_are_those_of_the_answers_tokens_under_each_mixture(scorer: ServerScorer) -> None:
    population = [(0.5, -0.25, 1e-7), (0.0, 1.0, 0.0)]
    models = ["0.5*a@1+-0.25*b@2+1e-07*c@3", "1*b@2"]
    scored = scorer.score(population, ROWS)
    assert scored == [[expected(model, row) for row in ROWS] for model in models]
    assert [each.exact for each in scored[0]] == [True, False, True]


def test_what_a_request_asks_for(fake: FakeLoraLoom, scorer: ServerScorer) -> None:
    scorer.score([(1.0, 2.0, 3.0)], ROWS[:1])
    (body,) = fake.bodies
    assert body == {
        "model": "1*a@1+2*b@2+3*c@3",
        "prompt": [1, 2, 4, 6],
        "max_tokens": 1,
        "temperature": 0,
        "repetition_penalty": 1.0,
        "prompt_logprobs": 0,
        "service_tier": "flex",
    }


def test_zero_weights_are_left_out_and_none_at_all_is_the_base(fake: FakeLoraLoom, scorer: ServerScorer) -> None:
    scorer.score([(0.0, 0.5, -0.0), (0.0, 0.0, 0.0)], ROWS[:1])
    assert {body["model"] for body in fake.bodies} == {"0.5*b@2", "base"}


def test_weights_come_back_as_they_were(scorer: ServerScorer) -> None:
    weights = (0.1 + 0.2, -1.4999999999999998, 1e-17)
    mixture = parse(scorer.model(weights)).mixture
    assert tuple(term.weight for term in mixture.terms) == weights


@pytest.mark.parametrize(
    ("method", "more", "model"),
    [("lorahub", {}, "lorahub:1*a@1+1*b@2"), ("exact", {"rank": 8}, "svd(rank=8):1*a@1+1*b@2")],
)
def test_other_methods(fake: FakeLoraLoom, method: str, more: dict[str, int], model: str) -> None:
    assert scorer_of(fake, POOL[:2], method, **more).model((1.0, 1.0)) == model


def test_a_truncated_composition_of_lorahub_is_refused(fake: FakeLoraLoom) -> None:
    with pytest.raises(InvalidPool, match="scorer `torch`"):
        scorer_of(fake, method="lorahub", rank=8)


def test_adapters_may_be_named_by_their_content(fake: FakeLoraLoom) -> None:
    scorer = scorer_of(fake, ["a@sha256:0123456789ab", "b@2"])
    assert scorer.model((1.0, 1.0)) == "1*a@sha256:0123456789ab+1*b@2"


def test_a_text_that_is_too_long(fake: FakeLoraLoom) -> None:
    pool = [f"{'x' * 60}{number}@1" for number in range(80)]
    with pytest.raises(InvalidPool, match="at most 4096 characters, and this mixture of 80 has more"):
        scorer_of(fake, pool).model((0.5,) * 80)


def test_a_candidate_is_given_up_by_its_first_rows(fake: FakeLoraLoom) -> None:
    """Also where later rows are answered first: the first row of the first candidate waits for the third."""
    third = threading.Event()

    def first(request: httpx.Request) -> None:
        if b'"1*a@1"' in request.content:
            if b"9,9" in request.content:
                third.set()
            elif b"[1,2," in request.content:
                assert third.wait(30)

    fake.first = first
    asked: list[tuple[int, int]] = []

    def stop(candidate: int, scores: Sequence[RowScore]) -> bool:
        asked.append((candidate, len(scores)))
        return candidate == 0 and len(scores) == 2

    given_up, whole = scorer_of(fake).score([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)], ROWS, stop)
    assert given_up == [expected("1*a@1", row) for row in ROWS[:2]]
    assert whole == [expected("1*b@2", row) for row in ROWS]
    assert [each for each in asked if each[0] == 0] == [(0, 1), (0, 2)]


def test_rows_of_a_candidate_that_was_given_up_are_not_sent(fake: FakeLoraLoom) -> None:
    """None but those that were under way: they wait until the first row has been judged."""
    rows, judged = [ROWS[0], *[ROWS[1]] * 49], threading.Event()

    def first(request: httpx.Request) -> None:
        assert b"[1,2," in request.content or judged.wait(60)

    def stop(candidate: int, scores: Sequence[RowScore]) -> bool:
        judged.set()
        return True

    fake.first = first
    ((score,),) = scorer_of(fake).score([(1.0, 0.0, 0.0)], rows, stop)
    assert score == expected("1*a@1", rows[0])
    assert 1 <= len(fake.bodies) <= 4


def test_as_many_at_once_as_is_said(fake: FakeLoraLoom) -> None:
    four = threading.Barrier(4)
    fake.first = lambda request: None if four.wait(30) >= 0 else None
    scorer_of(fake).score([(1.0, 1.0, 1.0)], [ROWS[0]] * 8)
    assert len(fake.bodies) == 8


def test_answers_without_what_ends_the_turn(fake: FakeLoraLoom, scorer: ServerScorer) -> None:
    assert scorer.answers((1.0, 0.0, 0.0), [(1, 2, 3), (4, 5)], 3) == [[3, 2, 1], [5, 4]]
    assert {body["service_tier"] for body in fake.bodies} == {"flex"}
    assert all(body["return_token_ids"] and body["repetition_penalty"] == 1 for body in fake.bodies)


def only(path: str, answer: httpx.Response) -> Answer:
    return lambda request: answer if request.url.path == path else None


def test_a_check_that_finds_nothing(fake: FakeLoraLoom, scorer: ServerScorer) -> None:
    asked: list[str] = []
    fake.first = lambda request: asked.append(request.url.path)
    scorer.check()
    names = ("base", "a@1", "b@2", "c@3")
    assert asked == ["/ready", *(f"/v1/models/{name}" for name in names), "/tokenize"]
    assert fake.bodies == []
    assert scorer.context is None


def test_a_check_learns_how_much_the_server_holds(fake: FakeLoraLoom, scorer: ServerScorer) -> None:
    def card(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(200, json={"max_model_len": 2048}) if request.url.path == "/v1/models/base" else None

    fake.first = card
    scorer.check()
    assert scorer.context == 2048


def test_a_check_of_as_many_as_will_be_mixed(fake: FakeLoraLoom, scorer: ServerScorer) -> None:
    asked: list[bytes] = []
    fake.first = lambda request: asked.append(request.content)
    scorer.check(2)
    assert b'"1*a@1+1.015625*b@2"' in asked[-1]
    scorer.check(2, [4, 16, 8])
    assert b'"1.015625*b@2+1.03125*c@3"' in asked[-1]


@pytest.mark.parametrize(
    "answer", [httpx.Response(404), httpx.Response(200, text="hello"), httpx.Response(200, json={})]
)
def test_a_server_of_another_kind(fake: FakeLoraLoom, scorer: ServerScorer, answer: httpx.Response) -> None:
    fake.first = only("/ready", answer)
    with pytest.raises(InvalidSpec, match="is no LoraLoom"):
        scorer.check()


def test_an_adapter_that_the_server_does_not_have(fake: FakeLoraLoom) -> None:
    with pytest.raises(InvalidPool, match="no such adapter"):
        scorer_of(fake, ["a@1", "z@9"]).check()


@pytest.mark.parametrize("code", ["rank_too_high", "invalid_mixture"])
def test_mixtures_that_the_server_cannot_make(fake: FakeLoraLoom, scorer: ServerScorer, code: str) -> None:
    fake.first = only("/tokenize", refused(400, code, "it has rank 64 (32 + 32)"))
    with pytest.raises(InvalidPool, match=r"rank 64 \(32 \+ 32\).*scorer `torch`"):
        scorer.check()


def test_a_server_that_truncates_mixtures(fake: FakeLoraLoom, scorer: ServerScorer) -> None:
    fake.truncates = 0.125
    with pytest.raises(InvalidPool, match=r"rank 16, with a relative error of 12.5%.*scorer `torch`"):
        scorer.check()
    scorer_of(fake, rank=16).check()


def test_another_refusal_is_told_in_the_servers_words(fake: FakeLoraLoom, scorer: ServerScorer) -> None:
    fake.first = only("/v1/completions", refused(400, "invalid_body", "the prompt has 9000 tokens"))
    with pytest.raises(InvalidSpec, match="400: the prompt has 9000 tokens"):
        scorer.score([(1.0, 1.0, 1.0)], ROWS)


def test_after_a_failure_no_other_row_is_begun(
    fake: FakeLoraLoom, scorer: ServerScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None but those under way until the others are cancelled, the next of the failed row's thread included."""
    asked: list[bytes] = []
    cancelled = threading.Event()

    class Telling(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            cancelled.set()
            super().shutdown(wait)

    def failing(request: httpx.Request) -> httpx.Response | None:
        asked.append(request.content)
        if b"[1,2," in request.content:
            return refused(400, "invalid_mixture", "no")
        assert cancelled.wait(60)
        return None

    fake.first = failing
    monkeypatch.setattr(server_scorer, "ThreadPoolExecutor", Telling)
    with pytest.raises(InvalidPool):
        scorer.score([(1.0, 1.0, 1.0)], [ROWS[0], *[ROWS[1]] * 499])
    assert 1 <= len(asked) <= 5


def test_a_server_that_is_lost(fake: FakeLoraLoom, scorer: ServerScorer) -> None:
    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody listens")

    fake.first = silent
    with pytest.raises(ServerLost, match="nobody listens"):
        scorer.score([(1.0, 1.0, 1.0)], ROWS)
