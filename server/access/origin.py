"""Web pages: what a browser on the same machine may send to a server that asks for no key.

Such a server trusts whoever reaches it, and a page from anywhere reaches it through the browser of whoever looks at
the page: by a form or a script, for which the engine's server allows every origin, or by a name of the page's own that
is made to lead to 127.0.0.1 (DNS rebinding). A key is sent by nobody unasked, so a server with keys needs none of this.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from loraloom.server.access.exposure import is_loopback
from loraloom.server.errors import Forbidden

_ADVICE = "Make keys (`loraloom keys create`), or start it with --insecure where something in front sees who comes"


def check_origin(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """See that a request to a server without keys was meant for it, by somebody on its own machine.

    Args:
        headers: of the request, as in ASGI.

    Raises:
        Forbidden: it is sent by a web page from elsewhere, or under a name that is not this machine's own.
    """
    for name, value in headers:
        if name == b"origin" and not is_loopback(_host(value)):
            raise Forbidden(f"this server has no keys, and so takes nothing from web pages of elsewhere. {_ADVICE}")
        if name == b"host" and not is_loopback(_host(b"//" + value)):
            raise Forbidden(
                f"this server has no keys, and so is for its own machine only: ask for localhost, not for "
                f"{value.decode('latin-1')[:100]!r}. {_ADVICE}"
            )


def is_preflight(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a browser asks, by OPTIONS and without a key, what a page may send; the engine's server answers that."""
    return {b"origin", b"access-control-request-method"} <= {name for name, _ in headers}


def _host(address: bytes) -> str:
    """The host in an address; empty, which is nobody's own machine, where there is none."""
    try:
        return urlsplit(address.decode("latin-1")).hostname or ""
    except ValueError:
        return ""
