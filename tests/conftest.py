"""What every test may use."""

from pathlib import Path

import pytest

from loraloom.demo.model import prepare

pytest_plugins = ("tests.tiny_models",)


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in a hook of the same name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several processes that test, one has all that needs an engine: two engines would be in each other's way."""
    for item in items:
        if item.get_closest_marker("engine") is not None:
            item.add_marker(pytest.mark.xdist_group("engine"))


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The demo model's directory, made on first use (under a minute) and kept in the user's cache."""
    return prepare()
