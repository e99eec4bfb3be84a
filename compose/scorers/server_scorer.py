"""Scoring by a running LoraLoom, to which every candidate is a mixture: no second copy of the base model is needed.

Each row of each candidate is one request for the log-probabilities of its prompt, many at a time and after everybody
else's, so that the server computes a population as batches of many adapters.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import httpx

from loraloom.adapters.errors import InvalidName
from loraloom.adapters.methods import EXACT, Method
from loraloom.adapters.names import Mixture, Selection, Term, parse_adapter
from loraloom.compose.errors import ComposeError, InvalidPool, InvalidSpec
from loraloom.compose.scorers.connection import Connection, error_of
from loraloom.compose.scoring import Row, RowScore, Stop, Weights, never
from loraloom.compose.spec import Server

T = TypeVar("T")

WAITS = {"service_tier": "flex"}
"""In every request: everybody else's come first."""
POOL_CODES = ("model_not_found", "base_mismatch", "rank_too_high", "invalid_mixture", "adapter_not_loaded")
"""Refusals that are about the adapters."""
TRUNCATED = 1e-6
"""A relative error of a mixture above this is no rounding: the server has truncated it."""
ELSEWHERE = "The scorer `torch` has no such limit"


class ServerScorer:
    """`scoring.Scorer` by a server's mixtures; a candidate's scores may differ by rounding from batch to batch.

    Attributes:
        context: tokens that the server holds, once it was asked; None if it does not say.
    """

    def __init__(
        self,
        server: Server,
        pool: Sequence[str],
        method: str,
        *,
        base_name: str | None = None,
        rank: int | None = None,
        client: httpx.Client | None = None,
        key: str | None = None,
    ) -> None:
        """
        Args:
            server: where it is.
            pool: one version each, such as `sql@4`, or `sql@sha256:…` to be sure of its content.
            method: "exact" or "lorahub".
            base_name: how requests select the base model; None asks the server.
            rank: score mixtures truncated to this rank, as `svd(rank=…)`.
            client: to send requests with.
            key: of the server, if it wants one.

        Raises:
            InvalidPool: LoRAHub's composition is to be truncated, which no request can ask for.
        """
        if rank is not None and method != EXACT.name:
            raise InvalidPool(f"a server truncates exact mixtures only, not those of {method}. {ELSEWHERE}")
        self._pool = tuple(parse_adapter(name) for name in pool)
        self._method = Method(method) if rank is None else Method("svd", (("rank", rank),))
        self._server = server
        self._connection = Connection(server, client, key)
        self._base_name = base_name
        self.context: int | None = None

    def check(self, mixed: int | None = None, ranks: Sequence[int] | None = None) -> None:
        """Ask the server whether it can do this, before anything is scored.

        Args:
            mixed: how many adapters of the pool will be mixed; None is all.
            ranks: of the pool's adapters; those of the largest rank are asked for.

        Raises:
            InvalidSpec: it is no LoraLoom.
            InvalidPool: it does not have one of the adapters, or cannot mix them.
            ServerLost: it does not answer.
        """
        card = self._connection.ask("GET", f"/v1/models/{self._base()}")
        self.context = _context(card)
        for adapter in self._pool:
            self._answer("GET", f"/v1/models/{adapter}")
        order = sorted(range(len(self._pool)), key=lambda index: -(ranks or [0] * len(self._pool))[index])
        asked = set(order[: mixed or len(self._pool)])
        weights = [1 + index / 64 if index in asked else 0.0 for index in range(len(self._pool))]
        answer = self._answer("POST", "/tokenize", {"model": self.model(tuple(weights)), "prompt": "a"})
        error = float(answer.headers.get("loraloom-mixture-error", 0))
        if self._method.name != "svd" and error > TRUNCATED:
            raise InvalidPool(
                f"the server truncates this mixture to rank {answer.headers['loraloom-mixture-rank']}, with a relative "
                f"error of {error:.1%}. {ELSEWHERE}"
            )

    def score(self, population: Sequence[Weights], rows: Sequence[Row], stop: Stop = never) -> list[list[RowScore]]:
        """As `scoring.Scorer.score`: a candidate is given up by its first rows, in whatever order answers come."""
        models = [self.model(weights) for weights in population]
        candidates = [_Candidate(index, stop) for index in range(len(models))]

        def work(candidate: _Candidate, model: str, place: int, gone: threading.Event) -> None:
            if not candidate.given_up:
                candidate.note(place, self._row_score(model, rows[place], gone))

        self._at_once(
            [
                partial(work, candidate, model, place)
                for candidate, model in zip(candidates, models, strict=True)
                for place in range(len(rows))
            ]
        )
        return [candidate.scores for candidate in candidates]

    def answers(self, weights: Weights, prompts: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
        """As `scoring.Scorer.answers`."""
        model = self.model(weights)
        return self._at_once([partial(self._continuation, model, prompt, limit) for prompt in prompts])

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def model(self, weights: Weights) -> str:
        """What a request for a candidate puts into `model`: weights of zero are left out.

        Raises:
            InvalidPool: the mixture's text is longer than a server reads.
        """
        terms = [Term(weight, adapter) for weight, adapter in zip(weights, self._pool, strict=True) if weight]
        if not terms:
            return self._base()
        try:
            return str(Selection(Mixture(tuple(terms), self._method)))
        except InvalidName as error:
            raise InvalidPool(f"{error.reason}, and this mixture of {len(terms)} has more. {ELSEWHERE}") from error

    def _base(self) -> str:
        """How requests select the base model."""
        if self._base_name is None:
            answer = self._connection.ask("GET", "/ready")
            try:
                self._base_name = str(answer.json()["model"])
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidSpec(
                    f"server.url: {self._connection.url} is no LoraLoom: start one with `loraloom serve`"
                ) from error
        return self._base_name

    def _row_score(self, model: str, row: Row, gone: threading.Event) -> RowScore:
        """`prompt_logprobs` of 0 are those of the prompt's own tokens, each with its rank among all."""
        choice = self._completion(model, [*row.prompt, *row.answer], gone, max_tokens=1, prompt_logprobs=0)
        told = [next(iter(each.values())) for each in choice["prompt_logprobs"][len(row.prompt) :]]
        return RowScore(
            nll=-sum(each["logprob"] for each in told),
            tokens=len(row.answer),
            exact=all(each["rank"] == 1 for each in told),
        )

    def _continuation(self, model: str, prompt: Sequence[int], limit: int, gone: threading.Event) -> list[int]:
        choice = self._completion(model, list(prompt), gone, max_tokens=limit, return_token_ids=True)
        tokens: list[int] = choice["token_ids"]
        return tokens[:-1] if choice["finish_reason"] == "stop" else tokens

    def _completion(self, model: str, prompt: list[int], gone: threading.Event, **wanted: object) -> dict[str, Any]:
        """Greedy, whatever the model's own generation configuration says."""
        body = {"model": model, "prompt": prompt, "temperature": 0, "repetition_penalty": 1.0, **WAITS}
        answer = self._answer("POST", "/v1/completions", {**body, **wanted}, gone)
        choice: dict[str, Any] = answer.json()["choices"][0]
        return choice

    def _answer(
        self, method: str, path: str, body: dict[str, object] | None = None, gone: threading.Event | None = None
    ) -> httpx.Response:
        answer = self._connection.ask(method, path, body, gone)
        if answer.is_error:
            raise _refusal(answer)
        return answer

    def _at_once(self, works: Sequence[Callable[[threading.Event], T]]) -> list[T]:
        """What all of them give, `concurrency` at a time; after the first that fails no other is begun."""
        gone = threading.Event()
        with ThreadPoolExecutor(min(self._server.concurrency, len(works) or 1), "loraloom-scoring") as threads:
            futures = [threads.submit(work, gone) for work in works]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                failed = [error for future in done if (error := future.exception())]
                if failed:
                    raise failed[0]
                return [future.result() for future in futures]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)  # before any that waits ends, and lets another begin
                gone.set()
                raise


class _Candidate:
    """How far one candidate is scored.

    Attributes:
        scores: of its first rows, without a gap.
        given_up: whether its other rows are not wanted any more.
    """

    def __init__(self, index: int, stop: Stop) -> None:
        self.scores: list[RowScore] = []
        self.given_up = False
        self._index = index
        self._stop = stop
        self._ahead: dict[int, RowScore] = {}
        self._lock = threading.Lock()

    def note(self, place: int, score: RowScore) -> None:
        """Take the score of one row; those behind a gap, or behind the end, do not count."""
        with self._lock:
            self._ahead[place] = score
            while not self.given_up and len(self.scores) in self._ahead:
                self.scores.append(self._ahead.pop(len(self.scores)))
                self.given_up = self._stop(self._index, self.scores)


def _refusal(answer: httpx.Response) -> ComposeError:
    """What the job is told of a request that the server does not take, in the server's own words."""
    code, message = error_of(answer)
    if code in POOL_CODES:
        return InvalidPool(f"the server refuses: {message}. {ELSEWHERE}" if code != POOL_CODES[0] else message)
    return InvalidSpec(f"the server {answer.url.host} refuses with {answer.status_code}: {message}")


def _context(card: httpx.Response) -> int | None:
    """Tokens that the server holds, if the base's card says so."""
    with suppress(ValueError, AttributeError):
        told = card.json().get("max_model_len")
        return told if isinstance(told, int) else None
    return None
