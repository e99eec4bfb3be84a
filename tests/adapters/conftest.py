"""Real things to test with: an S3 server, and a stand-in for the Hugging Face Hub."""

import hashlib
import json
import os
import threading
import uuid
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server of our own, which boto and s3fs find through the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_SESSION_TOKEN": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    before = {key: os.environ.get(key) for key in environment}
    os.environ.update(environment)
    yield environment["AWS_ENDPOINT_URL"]
    server.stop()
    for key, value in before.items():
        if value is None:
            del os.environ[key]
        else:
            os.environ[key] = value


@pytest.fixture
def s3_url(s3_endpoint: str) -> str:
    """The URL of a fresh and empty bucket, such as `s3://loraloom-1f0c…`."""
    import boto3

    bucket = f"loraloom-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


class FakeHub(ThreadingHTTPServer):
    """Answers the few requests of the Hugging Face Hub's HTTP interface that reading a model takes.

    Attributes:
        repos: the files of each repository, by its id.
        gated: the ids that need a permission.
        requests: method and path of what was asked for, in order.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.requests: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def publish(self, repo: str, folder: Path) -> None:
        self.repos[repo] = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def commit(self, repo: str) -> str:
        content = [(name, hashlib.sha1(data).hexdigest()) for name, data in sorted(self.repos[repo].items())]
        return hashlib.sha1(repr(content).encode()).hexdigest()


class _HubHandler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path).path.removeprefix("/api/models").strip("/").split("/")
        repo, rest = "/".join(parts[:2]), parts[2:]
        self.server.requests.append((self.command, self.path))
        if repo in self.server.gated:
            self._send(HTTPStatus.FORBIDDEN, error="GatedRepo")
        elif repo not in self.server.repos:
            self._send(HTTPStatus.NOT_FOUND, error="RepoNotFound")
        elif len(rest) > 1 and rest[1] not in ("main", self.server.commit(repo)):
            self._send(HTTPStatus.NOT_FOUND, error="RevisionNotFound")
        elif rest[:1] == ["resolve"]:
            self._send_file(repo, rest[2])
        else:
            self._send_listing(repo, tree=rest[:1] == ["tree"])

    def _send_listing(self, repo: str, tree: bool) -> None:
        files = self.server.repos[repo].items()
        if tree:
            found: Any = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files
            ]
        else:
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files]
            found = {"id": repo, "sha": self.server.commit(repo), "siblings": siblings}
        self._send(HTTPStatus.OK, json.dumps(found).encode(), **{"Content-Type": "application/json"})

    def _send_file(self, repo: str, name: str) -> None:
        data = self.server.repos[repo].get(name)
        if data is None:
            self._send(HTTPStatus.NOT_FOUND, error="EntryNotFound", **{"X-Repo-Commit": self.server.commit(repo)})
            return
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self.server.commit(repo)}
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            part = data[int(first) : int(last) + 1 if last else None]
            headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
            self._send(HTTPStatus.PARTIAL_CONTENT, part, **headers)
        else:
            self._send(HTTPStatus.OK, data, **headers)

    def _send(self, status: HTTPStatus, body: bytes = b"", error: str | None = None, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if error is not None:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hugging Face Hub of our own, with an empty local cache."""
    from huggingface_hub import constants

    server = FakeHub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()
