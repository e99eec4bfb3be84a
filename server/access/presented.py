"""The key that a request sends."""

from collections.abc import Iterable

from loraloom.server.errors import Unauthenticated

_TWO_KEYS = "this request sends two different keys: send one, as `Authorization: Bearer …` or as `x-api-key`"


def secret_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What the headers present as a key; None if nothing.

    OpenAI's clients send `Authorization: Bearer ll_…`, Anthropic's send `x-api-key: ll_…`. Another scheme, such as
    `Basic`, is for a proxy before the server, and is passed over.

    Args:
        headers: as ASGI has them, their names in lower case.

    Raises:
        Unauthenticated: they present more than one.
    """
    found: str | None = None
    for name, value in headers:
        if name == b"authorization":
            scheme, _, text = value.decode("latin-1").strip().partition(" ")
            presented = text.strip() if scheme.lower() == "bearer" else ""
        elif name == b"x-api-key":
            presented = value.decode("latin-1").strip()
        else:
            continue
        if presented and found is not None and presented != found:
            raise Unauthenticated(_TWO_KEYS)
        found = presented or found
    return found
