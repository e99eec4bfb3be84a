"""The engine of the tests with keys, and the order in which engines end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.collector import collecting
from tests.e2e.tenants import Tenants, serving_tenants


@pytest.fixture(scope="session")
def tenants(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    """A server with keys, for the tests in `LAST`; the last of them ends it."""
    with collecting() as spans, serving_tenants(demo_model, tmp_path_factory.mktemp("tenants"), spans) as running:
        yield running


LAST = ("test_observing.py", "test_tenants.py", "test_turns.py", "test_restart.py")
"""These in this order, after all others: the third ends the server of the first three, and the fourth kills another."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """End the engines last: the other tests of the session share them."""
    ours = {Path(__file__).parent / name: number for number, name in enumerate(LAST)}
    items.sort(key=lambda item: ours.get(item.path, -1))
