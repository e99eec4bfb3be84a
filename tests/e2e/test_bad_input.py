"""Bad input gets a clear error with the right status; the store stays whole, and the server serves on."""

import io
import json
import socket
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file, save

from loraloom.adapters.store import Store
from loraloom.demo.catalog import demo_adapters
from tests.e2e.serving import BASE, Server, chat_body, error_of, eventually

pytestmark = pytest.mark.engine

ADAPTER = demo_adapters()[0]
CONFIG = (ADAPTER.folder / "adapter_config.json").read_bytes()
WEIGHTS = (ADAPTER.folder / "adapter_model.safetensors").read_bytes()
CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def unharmed(server: Server) -> Iterator[None]:
    """After every test: the same adapters, nothing damaged, and the server answers rightly."""
    store = Store.open(server.store)
    before = {name: [version.digest for version in store.versions(name)] for name in store.names()}
    yield
    assert {name: [version.digest for version in store.versions(name)] for name in store.names()} == before
    assert not [finding for finding in store.verify() if finding.kind != "garbage"]
    prompt, expected = ADAPTER.examples[0]
    reply = server.request("POST", CHAT, json=chat_body(ADAPTER.name, prompt)).json()
    assert reply["choices"][0]["message"]["content"] == expected


def upload(server: Server, name: str, files: dict[str, bytes]) -> httpx.Response:
    """Upload files under an adapter's name."""
    parts = [("files", (file, content)) for file, content in files.items()]
    return server.request("POST", "/v1/adapters", data={"name": name}, files=parts)


def changed_tensor(value: float) -> bytes:
    tensors = load_file(ADAPTER.folder / "adapter_model.safetensors")
    first = sorted(tensors)[0]
    tensors[first] = torch.full_like(tensors[first], value)
    return save(tensors)


def other_shapes() -> bytes:
    """The adapter with every B for a model twice as wide."""
    tensors = load_file(ADAPTER.folder / "adapter_model.safetensors")
    return save({n: torch.cat([t, t]).contiguous() if "lora_B" in n else t for n, t in tensors.items()})


def high_rank() -> tuple[bytes, bytes]:
    """An adapter of rank 512 on one module."""
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    torch.manual_seed(0)
    tensors = {f"{name}.lora_A.weight": torch.randn(512, 576), f"{name}.lora_B.weight": torch.randn(576, 512)}
    config = {"peft_type": "LORA", "r": 512, "lora_alpha": 512, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    return json.dumps(config).encode(), save(tensors)


def tar_with(member: tarfile.TarInfo) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in (("adapter_config.json", CONFIG), ("adapter_model.safetensors", WEIGHTS)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        archive.addfile(member)
    return raw.getvalue()


def symlink() -> tarfile.TarInfo:
    info = tarfile.TarInfo("README.md")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"adapter_config.json": CONFIG, "adapter_model.safetensors": WEIGHTS[:-100]}, "adapter_model.safetensors"),
        ({"adapter_config.json": CONFIG, "adapter_model.safetensors": struct.pack("<Q", 2**60) + b"{}"}, "header"),
        ({"adapter_config.json": CONFIG, "adapter_model.bin": b"\x80\x04."}, "adapter_model.bin"),
        ({"adapter_config.json": CONFIG}, "safetensors"),
        ({"adapter_model.safetensors": WEIGHTS}, "adapter_config.json"),
        ({"adapter_config.json": b"{", "adapter_model.safetensors": WEIGHTS}, "JSON"),
        ({"adapter_config.json": CONFIG, "adapter_model.safetensors": changed_tensor(float("nan"))}, "NaN"),
        ({"adapter_config.json": CONFIG, "adapter_model.safetensors": changed_tensor(float("inf"))}, "infinity"),
        ({"adapter_config.json": CONFIG, "adapter_model.safetensors": other_shapes()}, "shape"),
        ({"../adapter_config.json": CONFIG, "adapter_model.safetensors": WEIGHTS}, "no file of an adapter"),
        ({"/etc/cron.d/x": CONFIG, "adapter_model.safetensors": WEIGHTS}, "no file of an adapter"),
        ({"a.tar": tar_with(symlink())}, "link"),
        ({"a.tar": tar_with(tarfile.TarInfo("../adapter_config.json"))}, "unsafe path"),
        ({"a.tar": tar_with(tarfile.TarInfo("/adapter_config.json"))}, "unsafe path"),
        ({"a.tar": b"no archive"}, "archive"),
    ],
)
def test_a_bad_upload_is_refused(server: Server, files: dict[str, bytes], told: str) -> None:
    reply = upload(server, "bad", files)
    assert reply.status_code == 400, reply.text
    assert told in str(error_of(reply)["message"])


@pytest.mark.parametrize("name", ["../x", "/abs", "a\0b", "", "a/b/c", "x" * 65, "a b", "org/versions"])
def test_a_bad_name_is_refused(server: Server, name: str) -> None:
    reply = upload(server, name, {"adapter_config.json": CONFIG, "adapter_model.safetensors": WEIGHTS})
    assert reply.status_code == 400, reply.text
    assert error_of(reply)["code"] in {"invalid_model", "invalid_body"}


def test_a_rank_over_the_limit_is_stored_but_not_served(server: Server) -> None:
    config, weights = high_rank()
    files = {"adapter_config.json": config, "adapter_model.safetensors": weights}
    assert upload(server, "wide", files).status_code == 201
    reply = server.request("POST", CHAT, json=chat_body("wide", "hello"))
    assert (reply.status_code, error_of(reply)["code"]) == (400, "rank_too_high")
    assert "512" in str(error_of(reply)["message"])
    assert "serves up to 64" in str(error_of(reply)["message"])
    assert server.request("DELETE", "/v1/adapters/wide").status_code == 200


def test_an_adapter_of_another_base_is_refused_at_its_first_use(server: Server, tmp_path: Path) -> None:
    """Stored unbound, because its base was not at hand, it meets the served base when it is asked for."""
    (tmp_path / "adapter_config.json").write_bytes(CONFIG)
    (tmp_path / "adapter_model.safetensors").write_bytes(other_shapes())
    store = Store.open(server.store)
    store.publish(tmp_path, "foreign")
    reply = server.request("POST", CHAT, json=chat_body("foreign", "hello"))
    store.remove("foreign")
    assert (reply.status_code, error_of(reply)["code"]) == (400, "base_mismatch")


def test_a_body_of_two_gigabytes_is_refused_before_it_is_read(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    length = f"content-length: {2 * 2**30}"
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{length}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        connection.sendall(head.encode() + b"{")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_body_of_undeclared_length_is_cut_off(server: Server) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 2**20

    reply = server.request("POST", CHAT, content=endless(), headers={"content-type": "application/json"})
    assert (reply.status_code, error_of(reply)["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_body"),
        (b"[]", "application/json", 400, "invalid_body"),
        (b"\xff\xfe", "application/json", 400, "invalid_body"),
        (b'{"temperature": NaN}', "application/json", 400, "invalid_body"),
        (b"{}", "text/plain", 415, "wrong_content_type"),
        (b"{}", "application/x-www-form-urlencoded", 415, "wrong_content_type"),
    ],
)
def test_a_body_that_is_no_json_object(
    server: Server, content: bytes, content_type: str, status: int, code: str
) -> None:
    reply = server.request("POST", CHAT, content=content, headers={"content-type": content_type})
    assert (reply.status_code, error_of(reply)["code"]) == (status, code)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/invocations", 404),
        ("POST", "/adapters", 404),
        ("GET", "/adapters", 404),
        ("POST", "/scale_elastic_ep", 404),
        ("GET", "/load", 404),
        ("POST", "/inference/v1/generate", 404),
        ("POST", "/inference/v1/abort_requests", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("GET", "/v1/chat/completions", 405),
    ],
)
def test_what_is_not_opened_is_closed(server: Server, method: str, path: str, status: int) -> None:
    reply = server.request(method, path, json={"model": BASE})
    assert reply.status_code == status
    assert error_of(reply)["code"] in {"path_closed", "method_not_open"}


def test_a_header_cannot_choose_an_adapter(server: Server) -> None:
    headers = {"X-Amzn-SageMaker-Adapter-Identifier": ADAPTER.name}
    reply = server.request("POST", CHAT, json=chat_body(BASE, "hello"), headers=headers)
    assert (reply.status_code, error_of(reply)["code"]) == (400, "header_refused")


def test_a_source_outside_of_the_allowed_prefixes_is_not_fetched(server: Server) -> None:
    body = {"name": "x", "source": str(ADAPTER.folder)}
    reply = server.request("POST", "/v1/adapters", json=body)
    assert (reply.status_code, error_of(reply)["code"]) == (400, "not_available")
    legacy = server.request("POST", "/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": "/etc"})
    assert legacy.status_code == 400


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize("messages", [[], [{"role": "tool", "content": "a"}]])
async def test_messages_that_are_refused_leave_no_traceback(server: Server, path: str, messages: list[object]) -> None:
    told = server.printed().count("Traceback")
    body = {"model": BASE, "max_tokens": 2, "messages": messages}
    reply = server.request("POST", path, json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"]
    later = server.request("GET", "/v1/models").headers["x-request-id"]

    async def logged() -> bool:
        return later in server.printed()

    await eventually(logged)
    assert server.printed().count("Traceback") == told


def test_a_schema_that_is_not_known_here_changes_nothing_for_others(server: Server) -> None:
    """Left to choose, the engine would take for everybody what suits this one."""
    schema = {"type": "integer", "multipleOf": 2}
    unknown = {"type": "json_schema", "json_schema": {"name": "even", "schema": schema}}
    with server.client() as client:
        refused = client.post("/v1/chat/completions", json=chat_body(BASE, "A number?", response_format=unknown))
        wanted = {"structured_outputs": {"choice": ["red", "blue"]}}
        answer = client.post("/v1/chat/completions", json=chat_body(BASE, "A colour?", max_tokens=4, **wanted))
    assert refused.status_code == 400
    assert "xgrammar" in error_of(refused)["message"]
    assert answer.json()["choices"][0]["message"]["content"] in ("red", "blue")
