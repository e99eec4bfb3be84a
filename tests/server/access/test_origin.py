"""What a web page may send to a server without keys."""

import pytest

from loraloom.server.access.origin import check_origin, is_preflight
from loraloom.server.errors import Forbidden


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:80"])
@pytest.mark.parametrize("origin", [None, "http://localhost:3000", "http://127.0.0.1", "https://[::1]:1"])
def test_the_machine_itself_may_ask(host: str, origin: str | None) -> None:
    more = [] if origin is None else [(b"origin", origin.encode())]
    check_origin([(b"host", host.encode()), *more])


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "["],
)
def test_a_page_from_elsewhere_may_not(origin: str) -> None:
    with pytest.raises(Forbidden, match="web pages"):
        check_origin([(b"host", b"localhost:8000"), (b"origin", origin.encode())])


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "", "localhost@evil.example", "10.0.0.1", "["])
def test_a_name_that_was_made_to_lead_here_is_not_this_machines(host: str) -> None:
    with pytest.raises(Forbidden, match="localhost"):
        check_origin([(b"host", host.encode())])


def test_of_two_headers_none_may_be_wrong() -> None:
    with pytest.raises(Forbidden):
        check_origin([(b"host", b"localhost"), (b"host", b"evil.example")])


def test_a_preflight_has_both_of_its_headers() -> None:
    origin, method = (b"origin", b"https://a.example"), (b"access-control-request-method", b"POST")
    assert is_preflight([(b"host", b"x"), method, origin])
    assert not is_preflight([origin])
    assert not is_preflight([method])
