"""The kernels as vLLM's own LoRA layers call them, on adapters in vLLM's slots."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from vllm.config import LoRAConfig, VllmConfig, set_current_vllm_config
from vllm.distributed import (
    destroy_distributed_environment,
    destroy_model_parallel,
    ensure_model_parallel_initialized,
    init_distributed_environment,
)
from vllm.lora import layers as lora_layers
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_selector import get_punica_wrapper
from vllm.model_executor.layers.linear import QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.platforms import current_platform
from vllm.platforms.cpu import CpuPlatform

from loraloom.server.kernels.install import install
from loraloom.server.kernels.punica import GroupedPunicaWrapperCPU

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="kernels of vLLM's CPU build")

HIDDEN, VOCABULARY, SLOTS, RANK = 64, 128, 3, 4
# Three requests with the adapters of slots 2 and 0 and one without, the last of them in a chunk of several tokens.
SLOT_IDS: list[int | None] = [5, None, 9]
TOKENS, SAMPLES = (9, 0, 5, 9, 9, 9), (9, 0, 5, 9)


@pytest.fixture(scope="module", autouse=True)
def _one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store: Path = tmp_path_factory.mktemp("ranks") / "store"
    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{store}", 0, "gloo")
        ensure_model_parallel_initialized(1, 1)
        yield
    destroy_model_parallel()
    destroy_distributed_environment()


@pytest.fixture
def wrapper(chosen: Path | None, monkeypatch: pytest.MonkeyPatch) -> GroupedPunicaWrapperCPU:
    """The wrapper that a new model gets, with the step mapped."""
    monkeypatch.setattr(CpuPlatform, "get_punica_wrapper", CpuPlatform.__dict__["get_punica_wrapper"])
    assert install(library=chosen)
    wrapper = get_punica_wrapper(64, max_batches=8, device="cpu", lora_config=None)
    wrapper.update_metadata(LoRAMapping(TOKENS, SAMPLES, is_prefill=True), SLOT_IDS, SLOTS + 1, VOCABULARY)
    return wrapper


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    torch.manual_seed(0)
    return request.param


def lora_config(dtype: torch.dtype, fully_sharded: bool = False) -> LoRAConfig:
    return LoRAConfig(max_lora_rank=8, max_loras=SLOTS, lora_dtype=dtype, fully_sharded_loras=fully_sharded)


def wrapped(kind: type, base: torch.nn.Module, config: LoRAConfig, wrapper: GroupedPunicaWrapperCPU) -> torch.nn.Module:
    torch.nn.init.normal_(base.weight, std=0.1)
    base.quant_method.process_weights_after_loading(base)
    layer = kind(base)
    layer.create_lora_weights(SLOTS, config)
    layer.set_mapping(wrapper)
    return layer


def factors(inputs: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(RANK, inputs) * 0.3, torch.randn(outputs, RANK) * 0.3


def adapters(inputs: int, outputs: int) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    return {slot: factors(inputs, outputs) for slot in (0, 2)}


def delta(updates: dict[int, torch.Tensor], ids: tuple[int, ...], x: torch.Tensor) -> torch.Tensor:
    """What each row's adapter adds, in float64; updates are dense, (outputs, inputs)."""
    nothing = torch.zeros_like(next(iter(updates.values())))
    return torch.stack(
        [(updates[SLOT_IDS.index(i)] if i else nothing) @ row for i, row in zip(ids, x.double(), strict=True)]
    )


def dense(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return b.to(dtype).double() @ a.to(dtype).double()


def assert_close(actual: torch.Tensor, base: torch.Tensor, added: torch.Tensor) -> None:
    """The base's own output is rounded to the dtype before the update is added: one more unit in the last place."""
    torch.testing.assert_close(actual.double(), base.double() + added, rtol=torch.finfo(actual.dtype).eps, atol=1e-5)


def test_packed_qkv_with_a_slice_left_alone(wrapper: GroupedPunicaWrapperCPU, dtype: torch.dtype) -> None:
    base = QKVParallelLinear(HIDDEN, 16, 4, 2, bias=False, params_dtype=dtype)
    layer = wrapped(lora_layers.MergedQKVParallelLinearWithLoRA, base, lora_config(dtype), wrapper)
    updates = {}
    for slot in (0, 2):
        (q_a, q_b), (v_a, v_b) = factors(HIDDEN, 64), factors(HIDDEN, 32)
        layer.set_lora(slot, [q_a, None, v_a], [q_b, None, v_b])
        updates[slot] = torch.cat([dense(q_a, q_b, dtype), torch.zeros(32, HIDDEN), dense(v_a, v_b, dtype)])
    x = torch.randn(len(TOKENS), HIDDEN).to(dtype)
    assert_close(layer(x)[0], base(x)[0], delta(updates, TOKENS, x))


@pytest.mark.parametrize("fully_sharded", [False, True])
def test_row_parallel(wrapper: GroupedPunicaWrapperCPU, dtype: torch.dtype, fully_sharded: bool) -> None:
    kind = lora_layers.RowParallelLinearWithShardedLoRA if fully_sharded else lora_layers.RowParallelLinearWithLoRA
    base = RowParallelLinear(HIDDEN, 48, bias=False, params_dtype=dtype)
    layer = wrapped(kind, base, lora_config(dtype, fully_sharded), wrapper)
    pairs = adapters(HIDDEN, 48)
    for slot, (a, b) in pairs.items():
        layer.set_lora(slot, a, b)
    x = torch.randn(len(TOKENS), HIDDEN).to(dtype)
    updates = {slot: dense(a, b, dtype) for slot, (a, b) in pairs.items()}
    assert_close(layer(x)[0], base(x)[0], delta(updates, TOKENS, x))


def test_embedding(wrapper: GroupedPunicaWrapperCPU, dtype: torch.dtype) -> None:
    base = VocabParallelEmbedding(VOCABULARY, HIDDEN, params_dtype=dtype)
    layer = wrapped(lora_layers.VocabParallelEmbeddingWithLoRA, base, lora_config(dtype), wrapper)
    pairs = adapters(VOCABULARY, HIDDEN)
    for slot, (a, b) in pairs.items():
        layer.set_lora(slot, a, b)
    tokens = torch.randint(VOCABULARY, (len(TOKENS),))
    updates = {slot: dense(a, b, dtype) for slot, (a, b) in pairs.items()}
    one_hot = torch.nn.functional.one_hot(tokens, VOCABULARY)
    assert_close(layer(tokens), base(tokens), delta(updates, TOKENS, one_hot))


def test_logits(wrapper: GroupedPunicaWrapperCPU, dtype: torch.dtype) -> None:
    head = ParallelLMHead(VOCABULARY, HIDDEN, params_dtype=dtype)
    torch.nn.init.normal_(head.weight, std=0.1)
    head.quant_method.process_weights_after_loading(head)
    base = LogitsProcessor(VOCABULARY)
    layer = lora_layers.LogitsProcessorWithLoRA(base, HIDDEN, dtype, torch.device("cpu"), None)
    layer.create_lora_weights(SLOTS, lora_config(dtype))
    layer.set_mapping(wrapper)
    pairs = adapters(HIDDEN, VOCABULARY)
    for slot, (a, b) in pairs.items():
        layer.set_lora(slot, a, b)
    x = torch.randn(len(SAMPLES), HIDDEN).to(dtype)
    updates = {slot: dense(a, b, dtype) for slot, (a, b) in pairs.items()}
    assert_close(layer(head, x), base(head, x), delta(updates, SAMPLES, x))
