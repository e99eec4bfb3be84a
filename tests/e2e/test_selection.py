"""Every way to choose an adapter reaches the right one; the others are told what to do."""

import pytest

from loraloom.adapters.store import Store
from loraloom.demo.catalog import demo_adapters
from tests.e2e.serving import BASE, Server, chat_body, error_of

pytestmark = pytest.mark.engine

FIRST, SECOND = demo_adapters()[:2]
PROMPT, EXPECTED = FIRST.examples[0]


def digest(server: Server) -> str:
    return Store.open(server.store).versions(FIRST.name)[0].digest


@pytest.mark.parametrize(
    "choose",
    [
        lambda _: {"model": FIRST.name},
        lambda _: {"model": f"{FIRST.name}@1"},
        lambda _: {"model": f"{FIRST.name}@latest"},
        lambda server: {"model": f"{FIRST.name}@sha256:{digest(server)}"},
        lambda server: {"model": f"{FIRST.name}@sha256:{digest(server)[:8]}"},
        lambda _: {"model": BASE, "adapter": FIRST.name},
        lambda _: {"adapter": {"name": FIRST.name}},
        lambda _: {"adapter": {"name": FIRST.name, "version": 1}},
        lambda _: {"model": BASE, "adapter_id": f"{FIRST.name}@1"},
    ],
)
def test_a_selection_reaches_its_adapter(server: Server, choose) -> None:  # type: ignore[no-untyped-def]
    chosen = choose(server)
    with server.client() as client:
        reply = client.post("/v1/chat/completions", json={**chat_body("", PROMPT), "model": None, **chosen})
    assert reply.status_code == 200, reply.text
    assert reply.json()["model"] == f"{FIRST.name}@1"
    assert reply.json()["choices"][0]["message"]["content"] == EXPECTED


def test_without_a_selection_the_base_answers(server: Server) -> None:
    body = chat_body(BASE, "What is the capital of France?", max_tokens=16)
    with server.client() as client:
        named = client.post("/v1/chat/completions", json=body).json()
        unnamed = client.post("/v1/chat/completions", json={k: v for k, v in body.items() if k != "model"}).json()
    assert "Paris" in named["choices"][0]["message"]["content"]
    assert named["choices"][0]["message"] == unnamed["choices"][0]["message"]
    assert named["model"] == unnamed["model"] == BASE


@pytest.mark.parametrize(
    ("model", "status", "code", "told"),
    [
        ("nothing-of-that-name", 404, "model_not_found", "nothing-of-that-name"),
        (FIRST.name + "x", 404, "model_not_found", FIRST.name),
        (f"{FIRST.name}@99", 404, "model_not_found", "99"),
        (f"{FIRST.name}@nightly", 404, "model_not_found", "latest"),
        (f"{FIRST.name}@sha256:00000000", 404, "model_not_found", "00000000"),
        ("../../etc/passwd", 400, "invalid_model", "position 0"),
        ("/etc/passwd", 400, "invalid_model", "position 0"),
        ("sql\0", 400, "invalid_model", "position"),
        ("a@b@c", 400, "invalid_model", "position"),
        ("a" * 5000, 400, "invalid_model", "position"),
        (f"0.5*{FIRST.name}+0.5*nothing-of-that-name", 404, "model_not_found", "nothing-of-that-name"),
        (f"{FIRST.name}~0.5", 400, "not_available", "not available"),
        (7, 400, "invalid_body", "string"),
    ],
)
def test_a_wrong_selection_is_told(server: Server, model: object, status: int, code: str, told: str) -> None:
    with server.client() as client:
        reply = client.post("/v1/chat/completions", json={**chat_body("", PROMPT), "model": model})
    error = error_of(reply)
    assert (reply.status_code, error["code"]) == (status, code), error
    assert told in str(error["message"])
    assert error["param"] == "model"


def test_two_selections_contradict(server: Server) -> None:
    body = {**chat_body(FIRST.name, PROMPT), "adapter": SECOND.name}
    reply = server.request("POST", "/v1/chat/completions", json=body)
    assert (reply.status_code, error_of(reply)["code"]) == (400, "invalid_body")
