"""Media are sent with a request, and are the key's own."""

from typing import Any

import pytest

from loraloom.server.errors import NotServed
from loraloom.server.gate.media import check_media, keep_apart

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}, "uuid": "invoice-1"}


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "http://a.b"}, *parts]}]}


@pytest.mark.parametrize(
    "body",
    [
        message({"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}),
        message({"type": "image_url", "image_url": "https://a.b/c.png"}),
        message({"type": "video_url", "video_url": {"url": "file:///etc/passwd"}}),
        message({"type": "image", "source": {"type": "url", "url": "http://a.b"}}),
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "ftp://a.b"}]}]},
        {"input": [{"type": "input_file", "file_url": "http://a.b"}]},
    ],
)
def test_nothing_is_fetched(body: dict[str, Any]) -> None:
    with pytest.raises(NotServed, match="data:"):
        check_media(body)


@pytest.mark.parametrize("body", [{}, message(), message(PICTURE), {"input": "http://a.b"}, {"messages": "x"}])
def test_what_comes_with_the_request_passes(body: dict[str, Any]) -> None:
    check_media(body)


def test_what_a_client_calls_a_picture_is_its_own_keys() -> None:
    body = message(PICTURE, {"type": "image_url", "image_url": None, "uuid": 7})
    keep_apart(body, lambda uuid: f"mine-{uuid}")
    assert [part.get("uuid") for part in body["messages"][0]["content"]] == [None, "mine-invoice-1", "mine-7"]
