"""Default-deny: what is open is listed here, path by path; everything else of the engine's server is closed."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import Mount

from loraloom.server.errors import MethodNotOpen, PathClosed
from loraloom.server.gate.middleware import GateMiddleware
from loraloom.server.gate.paths import Kind, OpenPaths
from loraloom.server.routes import routers

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE")

OPEN_OF_VLLM = {
    "GET /health",
    "GET /metrics",
    "GET /v1/models",
    "GET /version",
    "POST /detokenize",
    "POST /tokenize",
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/load_lora_adapter",
    "POST /v1/messages",
    "POST /v1/messages/count_tokens",
    "POST /v1/responses",
    "POST /v1/unload_lora_adapter",
}
"""Of the paths that vLLM's own server has; a new version of it must not add to this."""

CLOSED_OF_VLLM = {
    "/inference/v1/abort_requests",
    "/invocations",
    "/load",
    "/scale_elastic_ep",
    "/v1/chat/completions/batch",
    "/v1/responses/{response_id}",
    "/docs",
    "/openapi.json",
}
"""Some that vLLM's own server has, so that an empty list of routes fails the test."""


@pytest.fixture(scope="module")
def vllm_app() -> FastAPI:
    """vLLM's own application, as its server builds it, without an engine."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vLLM's own imports warn of deprecations
        patch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
        patch.setenv("VLLM_PLUGINS", "")
        return _vllm_app("--middleware", "loraloom.server.gate.middleware.GateMiddleware")


def _vllm_app(*arguments: str) -> FastAPI:
    from vllm.entrypoints.launchers.app import build_app

    from loraloom.server import engine

    args = engine._parse(["--model", "tiny", "--enable-lora", *arguments])
    return build_app(args, ("generate",))


def endpoints(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every method and path that an application answers."""
    for route in app.routes:
        methods: Any = METHODS if isinstance(route, Mount) else getattr(route, "methods", None) or ()
        yield from ((method, str(getattr(route, "path", ""))) for method in methods)


def is_open(method: str, path: str, further: tuple[str, ...] = ()) -> bool:
    try:
        OpenPaths(further).find(method, path)
    except (PathClosed, MethodNotOpen):
        return False
    return True


def test_of_vllms_own_paths_only_the_listed_ones_are_open(vllm_app: FastAPI) -> None:
    found = set(endpoints(vllm_app))
    assert {path for _, path in found} >= CLOSED_OF_VLLM
    opened = {f"{method} {path}" for method, path in found if is_open(method, path)}
    assert {each for each in opened if not each.startswith("HEAD ")} == OPEN_OF_VLLM


def test_the_gate_is_the_outermost_middleware_of_vllms_server(vllm_app: FastAPI) -> None:
    outermost: object = vllm_app.user_middleware[0].cls
    assert outermost is GateMiddleware


def test_every_route_of_ours_is_open() -> None:
    app = FastAPI(openapi_url=None)
    for router in routers():
        app.include_router(router)
    ours = {(method, path.replace("{name:path}", "org/sql")) for method, path in endpoints(app)}
    assert len(ours) >= 11
    assert {each for each in ours if not is_open(*each)} == set()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//v1/chat/completions",
        "/v1/chat/completions/",
        "/v1/chat/completions/../../../load",
        "/V1/CHAT/COMPLETIONS",
        "/v1/chat/completions\n",
        "/v1/chat%2fcompletions",
        "/v1/chat/completions\x00",
        "/v1/models/",
        "/v1/models/a\nb",
        "/v1/adapters/",
        "/health/",
        "/metrics/",
        "/v1//models",
        "/./v1/models",
        "v1/models",
        "/x" * 5000,
    ],
)
def test_odd_spellings_are_closed(path: str) -> None:
    for method in METHODS:
        with pytest.raises(PathClosed):
            OpenPaths().find(method, path)


@pytest.mark.parametrize(
    "name", ["sql", "org/sql", "sql@4", "sql@sha256:0123abcd", "..", "../../load", "ünïcode", "a b"]
)
def test_a_name_in_a_path_may_be_anything_and_stays_under_its_route(name: str) -> None:
    assert OpenPaths().find("GET", f"/v1/models/{name}").pattern == "/v1/models/{name}"
    assert OpenPaths().find("DELETE", f"/v1/adapters/{name}").pattern == "/v1/adapters/{name}"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/chat/completions"),
        ("PUT", "/v1/chat/completions"),
        ("DELETE", "/v1/models/sql"),
        ("POST", "/v1/models"),
        ("POST", "/health"),
        ("PATCH", "/v1/adapters/sql"),
        ("POST", "/v1/adapters/sql"),
        ("get", "/v1/models"),
    ],
)
def test_another_method_of_an_open_path_is_refused_with_those_it_takes(method: str, path: str) -> None:
    with pytest.raises(MethodNotOpen, match=f"not {method}"):
        OpenPaths().find(method, path)


def test_options_passes_on_open_paths_only() -> None:
    """CORS is answered behind the gate."""
    assert is_open("OPTIONS", "/v1/chat/completions")
    assert not is_open("OPTIONS", "/load")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/chat/completions", Kind.GENERATE),
        ("/v1/completions", Kind.GENERATE),
        ("/v1/responses", Kind.GENERATE),
        ("/v1/messages", Kind.GENERATE),
        ("/v1/messages/count_tokens", Kind.SELECT),
        ("/tokenize", Kind.SELECT),
        ("/detokenize", Kind.SELECT),
        ("/v1/adapters", Kind.UPLOAD),
        ("/v1/load_lora_adapter", Kind.PLAIN),
    ],
)
def test_what_happens_to_a_body(path: str, kind: Kind) -> None:
    assert OpenPaths().find("POST", path).kind is kind


def test_further_paths_are_opened_by_name() -> None:
    opened = OpenPaths(["/load", "/v1/responses/{response_id}"])
    assert opened.find("GET", "/load").kind is Kind.PLAIN
    assert opened.find("GET", "/v1/responses/resp_1").kind is Kind.PLAIN
    assert is_open("POST", "/load", ("/load",))
    assert not is_open("GET", "/load2", ("/load",))
    assert not is_open("GET", "/ping", ("/load",))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/adapters", "/v1/models/{name}"])
def test_a_further_path_cannot_take_an_open_one_past_its_selection(path: str) -> None:
    concrete = path.replace("{name}", "sql")
    method = "GET" if "{name}" in path else "POST"
    assert OpenPaths([path]).find(method, concrete) == OpenPaths().find(method, concrete)
    assert not is_open("PUT", concrete, (path,))


def test_a_closed_path_is_told_in_short() -> None:
    with pytest.raises(PathClosed) as refusal:
        OpenPaths().find("GET", "/" + "x" * 10_000)
    assert len(str(refusal.value)) < 400
    assert "open_paths" in str(refusal.value)
