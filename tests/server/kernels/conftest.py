"""vLLM's own imports warn of deprecations: they are made here, once, so that tests may treat warnings as errors."""

import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch._dynamo
    import torch._inductor.compile_fx  # noqa: F401  (vLLM's configuration imports it late)
    import vllm.config
    import vllm.lora.layers
    import vllm.platforms.cpu  # noqa: F401

from loraloom.server.kernels.build import CannotBuild, build
from loraloom.server.machine import processor_flags


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel, compiled for this machine."""
    try:
        return build(tmp_path_factory.mktemp("cache"), processor_flags())
    except CannotBuild as error:
        pytest.skip(str(error))


@pytest.fixture(params=["compiled", "torch"])
def chosen(request: pytest.FixtureRequest) -> Path | None:
    """The kernel, or None where torch is to compute."""
    return request.getfixturevalue("library") if request.param == "compiled" else None
