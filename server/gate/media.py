"""Pictures, sound and video in a request: sent with it, not fetched for it, and kept apart from other keys' own.

The engine's server would fetch whatever address a request names, from inside of its network. And it keeps media under
the `uuid` that a request gives them, for all requests: by a name that another key uses, one would see its picture.
"""

from collections.abc import Callable, Iterator
from typing import Any

from loraloom.server.errors import NotServed

FIELDS = ("messages", "input", "system")
"""Where a body has them."""
ADDRESSES = ("image_url", "audio_url", "video_url", "file_url", "url")


def check_media(body: dict[str, Any]) -> None:
    """Refuse media that the server would have to fetch; raises `NotServed`."""
    for part in _parts(body):
        for name in ADDRESSES:
            address = part.get(name)
            if isinstance(address, str) and not address.startswith("data:"):
                raise NotServed(f"send `{name}` as data (`data:image/png;base64,…`): this server fetches none", name)


def keep_apart(body: dict[str, Any], own: Callable[[str], str]) -> None:
    """Put what the key makes of it in place of every `uuid`, in the body itself."""
    for part in _parts(body):
        if part.get("uuid") is not None:
            part["uuid"] = own(str(part["uuid"]))


def _parts(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object in the parts of messages; texts, which most messages are, hold none."""
    inside = [body[name] for name in FIELDS if isinstance(body.get(name), list)]
    while inside:
        value = inside.pop()
        if isinstance(value, dict):
            yield value
            inside += [part for part in value.values() if not isinstance(part, str)]
        elif isinstance(value, list):
            inside += value
