"""Small models to compose. vLLM's own imports warn of deprecations: they are made here, with warnings off."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch._dynamo
    import torch._inductor.compile_fx  # noqa: F401  (vLLM's configuration imports it late)
    import vllm.config
    import vllm.lora.layers
    import vllm.model_executor.models.llama
    import vllm.platforms.cpu  # noqa: F401
    from vllm.platforms import current_platform

    from tests.server.proxy.composite.composing import Models, one_rank, save_small


@pytest.fixture(scope="session")
def models(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Three Llamas, the small ones of other width, depth and vocabulary than the large one."""
    root = tmp_path_factory.mktemp("pair")
    return Models(tiny_base, save_small(root / "small", seed=1), save_small(root / "expert", seed=2))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Lets vLLM's layers be built here, as on the only rank of an engine."""
    if not current_platform.is_cpu():
        pytest.skip("layers of vLLM's CPU build")
    with one_rank(tmp_path_factory.mktemp("ranks") / "store"):
        yield
