"""Tests that need a GPU are skipped where there is none."""

import pytest

from tests.gpu.device import missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip with the reason."""
    reason = missing()
    if reason:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=reason))
