"""Who can reach a server that anybody may use: without keys, only its own machine."""

import ipaddress

from loraloom.server.errors import InvalidSettings


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from the same machine only; a name other than localhost is not."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(host: str, *, keys: bool, insecure: bool) -> None:
    """See that a server which others can reach asks them for keys.

    Args:
        host: the address to listen on.
        keys: whether the store has any.
        insecure: whether somebody else sees to it who gets through.

    Raises:
        InvalidSettings: everybody who reaches this address could do everything.
    """
    if keys or insecure or is_loopback(host):
        return
    raise InvalidSettings(
        f"--host {host}: others could reach this server, and it has no keys, so that everybody could use, publish and "
        "remove adapters. Make a key (`loraloom keys create --name admin --role admin`), listen on 127.0.0.1, or give "
        "--insecure where something in front of it lets only the right people through"
    )
