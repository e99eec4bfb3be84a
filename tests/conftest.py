"""What every test may use."""

import os
from pathlib import Path

import pytest

from loraloom.demo.model import prepare

pytest_plugins = ("tests.tiny_models",)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several processes that test, let one have all that needs an engine, in order, from the beginning."""
    for item in items:
        if item.get_closest_marker("engine") is not None:
            item.add_marker(pytest.mark.xdist_group("engine"))
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("engine") is None)


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The demo model's directory, made on first use (under a minute) and kept in the user's cache."""
    return prepare()
