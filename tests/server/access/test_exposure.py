"""Who can reach a server without keys."""

import pytest

from loraloom.server.access.exposure import check_exposure, is_loopback
from loraloom.server.errors import InvalidSettings

LOOPBACK = ("127.0.0.1", "127.3.2.1", "::1", "[::1]", "localhost")
OTHERS = ("0.0.0.0", "::", "", "192.168.0.4", "example.org", "localhost.example.org", "2130706433")


@pytest.mark.parametrize("host", LOOPBACK)
def test_its_own_machine_reaches_a_server_without_keys(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, keys=False, insecure=False)


@pytest.mark.parametrize("host", OTHERS)
def test_others_do_not_unless_there_are_keys_or_somebody_insists(host: str) -> None:
    with pytest.raises(InvalidSettings, match="loraloom keys create"):
        check_exposure(host, keys=False, insecure=False)
    check_exposure(host, keys=True, insecure=False)
    check_exposure(host, keys=False, insecure=True)
