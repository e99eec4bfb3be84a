"""What every test may use."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from loraloom.demo.model import prepare

pytest_plugins = ("tests.tiny_models", "tests.e2e.engine")

# A busy machine is no fault of the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

ENGINES = ("tests/demo/", "tests/e2e/")
"""Where the tests are that start engines."""


class OneWithEngines(LoadScopeScheduling):
    """Of several processes that test, one has all that needs an engine, and begins with it; each other test is free.

    Engines are shared by the tests of a process, and two at a time would be in each other's way.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "engine" if nodeid.startswith(ENGINES) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneWithEngines:
    """Who gets which test, where there are several processes (`-n 2`)."""
    return OneWithEngines(config, log)


@pytest.fixture(scope="module", autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compute on one thread, but where models of real size are the reference for an engine.

    For tiny models that is as fast as two, which wait for each other as soon as anything else runs on the machine.
    """
    torch = sys.modules.get("torch")
    if torch is None or request.node.nodeid.startswith(ENGINES):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The demo model's directory, made on first use (under a minute) and kept in the user's cache."""
    return prepare()
