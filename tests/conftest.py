"""What every test may use."""

from pathlib import Path

import pytest

from loraloom.demo.model import prepare

pytest_plugins = ("tests.tiny_models",)


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The demo model's directory, made on first use (under a minute) and kept in the user's cache."""
    return prepare()
