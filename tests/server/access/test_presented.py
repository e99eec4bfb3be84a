"""Where a request says its key."""

import pytest

from loraloom.server.access.presented import secret_of
from loraloom.server.errors import Unauthenticated


@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ([], None),
        ([("host", "x")], None),
        ([("authorization", "Bearer ll_a")], "ll_a"),
        ([("authorization", " bearer   ll_a ")], "ll_a"),
        ([("x-api-key", " ll_a")], "ll_a"),
        ([("x-api-key", "ll_a"), ("authorization", "Bearer ll_a")], "ll_a"),
        ([("authorization", "Basic dXNlcg=="), ("x-api-key", "ll_a")], "ll_a"),
        ([("authorization", "Basic dXNlcg==")], None),
        ([("authorization", "Bearer")], None),
        ([("authorization", "Bearer ")], None),
        ([("authorization", "ll_a")], None),
        ([("x-api-key", ""), ("authorization", "Bearer ll_a")], "ll_a"),
        ([("authorization", "Bearer ll_a"), ("x-api-key", "")], "ll_a"),
    ],
)
def test_a_key_is_a_bearer_token_or_in_a_header_of_its_own(headers: list[tuple[str, str]], secret: str | None) -> None:
    assert secret_of((name.encode(), value.encode()) for name, value in headers) == secret


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer ll_a"), (b"x-api-key", b"ll_b")],
        [(b"authorization", b"Bearer ll_a"), (b"authorization", b"Bearer ll_b")],
        [(b"x-api-key", b"ll_b"), (b"host", b"x"), (b"x-api-key", b"ll_a")],
    ],
)
def test_two_different_keys_are_refused_without_saying_them(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Unauthenticated, match="two different keys") as caught:
        secret_of(headers)
    assert "ll_" not in str(caught.value)
