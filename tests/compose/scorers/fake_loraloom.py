"""What a scorer needs of a LoraLoom, without a model: likelihoods that follow from the mixture's weights."""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

Answer = Callable[[httpx.Request], httpx.Response | None]

EOS = 0


def refused(status: int, code: str, message: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message, "code": code}}, headers=headers)


def log_probability(model: str, place: int, token: int) -> float:
    """By the sum of the mixture's weights, the place and the token."""
    weights = [float(weight) for weight in re.findall(r"(-?[\d.]+(?:e-?\d+)?)\*", model)]
    return -0.01 * (token + place) - 0.1 * abs(1 - sum(weights))


@dataclass
class FakeLoraLoom:
    """Answers as a LoraLoom with the adapters `a@1`, `b@2` and `c@3`, for an `httpx.MockTransport`.

    Attributes:
        first: asked first; what it answers is the answer.
        bodies: of all completions, as they came.
        most: completions at a time.
        truncates: the relative error that it says mixtures have.
    """

    first: Answer = lambda request: None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    most: int = 0
    truncates: float = 0.0
    _running: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self) -> httpx.Client:
        """A client of it."""
        return httpx.Client(transport=httpx.MockTransport(self))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if (answer := self.first(request)) is not None:
            return answer
        path = request.url.path
        if path == "/ready":
            return httpx.Response(200, json={"status": "ready", "model": "base"})
        if path.startswith("/v1/models/"):
            known = path.removeprefix("/v1/models/") in ("a@1", "b@2", "c@3")
            return (
                httpx.Response(200, json={}) if known else refused(404, "model_not_found", "there is no such adapter")
            )
        if path == "/tokenize":
            headers = {"loraloom-mixture-rank": "16", "loraloom-mixture-error": str(self.truncates)}
            return httpx.Response(200, json={"tokens": [1]}, headers=headers)
        assert path == "/v1/completions"
        return self._completion(json.loads(request.content))

    def _completion(self, body: dict[str, Any]) -> httpx.Response:
        with self._lock:
            self.bodies.append(body)
            self._running += 1
            self.most = max(self.most, self._running)
        try:
            return httpx.Response(200, json={"choices": [self._choice(body)]})
        finally:
            with self._lock:
                self._running -= 1

    def _choice(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["prompt"]
        if "prompt_logprobs" not in body:
            whole = [*reversed(prompt), EOS]
            cut = whole[: body["max_tokens"]]
            return {"token_ids": cut, "finish_reason": "stop" if cut == whole else "length"}
        told = [
            {str(token): {"logprob": log_probability(body["model"], place, token), "rank": 1 + token % 2}}
            for place, token in enumerate(prompt)
        ]
        return {"prompt_logprobs": [None, *told[1:]], "finish_reason": "length"}
