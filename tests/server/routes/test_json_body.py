"""Small bodies of JSON: bounded, and told what is wrong with them."""

from typing import Any

import httpx
import pytest

from tests.server.replies import error_of, told
from tests.server.routes.conftest import Serve

CALLS = [
    ("POST", "/v1/mixtures"),
    ("POST", "/v1/adapters"),
    ("PUT", "/v1/adapters/sql/tags/stable"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/v1/unload_lora_adapter"),
]
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b" " * (2**20 - 2) + b"{}", (400, "invalid_body")),
        (b" " * (2**20 - 1) + b"{}", (413, "body_too_large")),
        (b"{", (400, "invalid_body")),
        (b"[" * 10_000, (400, "invalid_body")),
        (b"[]", (400, "invalid_body")),
    ],
    ids=["as large as may be", "too large", "not JSON", "deep", "no object"],
)
async def test_what_is_refused(
    client: httpx.AsyncClient, method: str, path: str, content: bytes, expected: tuple[int, str]
) -> None:
    reply = await client.request(method, path, content=content, headers=JSON)
    assert told(reply) == expected
    assert "errors.pydantic.dev" not in error_of(reply)["message"]


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}, {"content-type": "x" * 5000}])
async def test_what_does_not_say_that_it_is_json(
    client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]
) -> None:
    reply = await client.request(method, path, content=b"{}", headers=headers)
    assert told(reply) == (415, "wrong_content_type")
    assert len(reply.text) < 500


@pytest.mark.parametrize("media", ["application/json; charset=utf-8", "Application/JSON"])
async def test_how_it_may_say_so(serve: Serve, media: str) -> None:
    reply = await serve().post(
        "/v1/unload_lora_adapter", content=b'{"lora_name": "x"}', headers={"content-type": media}
    )
    assert told(reply) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/v1/mixtures", {"adapter": 1}, "`adapter`"),
        ("/v1/adapters", {"name": "a"}, "`source`"),
        ("/v1/load_lora_adapter", {}, "`lora_path`"),
    ],
)
async def test_it_is_told_what_it_must_be(client: httpx.AsyncClient, path: str, body: Any, word: str) -> None:
    message = error_of(await client.post(path, json=body))["message"]
    assert message.startswith("the body must be an object with ")
    assert word in message
