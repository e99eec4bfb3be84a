"""The kernels against dense float64 arithmetic, fed through vLLM's own mapping of rows to adapters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import vllm
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from loraloom.server.kernels import install
from loraloom.server.kernels.install import TESTED_VLLM
from loraloom.server.kernels.punica import GroupedPunicaWrapperCPU

# Slot to adapter id: neither in order nor full, as after some evictions. Id 0 in a mapping means no adapter.
SLOT_IDS: list[int | None] = [7, None, 3, 12]
RANKS = {7: 8, 3: 3, 12: 1}
MAX_RANK, INPUT, VOCABULARY, MAX_TOKENS = 8, 24, 50, 256

IDS = st.sampled_from([0, 7, 3, 12])
Requests = list[tuple[int, int]]  # adapter id and number of rows, one request after the other
REQUESTS = st.lists(st.tuples(IDS, st.integers(1, 20)), min_size=1, max_size=10)
WIDTHS = st.lists(st.sampled_from([1, 6, 16, 33]), min_size=1, max_size=3)  # of the slices of a packed layer
SEEDS = st.integers(0, 2**32 - 1)
DTYPES = [torch.float32, torch.bfloat16]

needs_tested_vllm = pytest.mark.skipif(
    not vllm.__version__.startswith(TESTED_VLLM), reason=f"says what vLLM {TESTED_VLLM} does"
)


@dataclass(frozen=True)
class Layer:
    """The slots of a packed layer, filled as vLLM fills them: zeros beyond an adapter's rank."""

    a: tuple[torch.Tensor, ...]
    b: tuple[torch.Tensor, ...]
    widths: tuple[int, ...]

    @classmethod
    def random(cls, widths: Sequence[int], dtype: torch.dtype, inputs: int = INPUT) -> "Layer":
        a = tuple(torch.zeros(len(SLOT_IDS), 1, MAX_RANK, inputs, dtype=dtype) for _ in widths)
        b = tuple(torch.zeros(len(SLOT_IDS), 1, width, MAX_RANK, dtype=dtype) for width in widths)
        for stacked_a, stacked_b in zip(a, b, strict=True):
            for slot, adapter in enumerate(SLOT_IDS):
                rank = RANKS.get(adapter or 0, 0)
                stacked_a[slot, 0, :rank] = torch.randn(rank, inputs)
                stacked_b[slot, 0, :, :rank] = torch.randn(stacked_b.shape[2], rank)
        return cls(a, b, tuple(widths))

    def expected(self, y: torch.Tensor, x: torch.Tensor, ids: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The dense result in float64, and the same of all magnitudes, to judge rounding by."""
        result, magnitude = y.double(), y.double().abs()
        for adapter in set(ids) - {0}:
            slot, rows = SLOT_IDS.index(adapter), torch.tensor(ids) == adapter
            inputs, start = x[rows].double().t(), 0
            for stacked_a, stacked_b, width in zip(self.a, self.b, self.widths, strict=True):
                a, b = stacked_a[slot, 0].double(), stacked_b[slot, 0].double()
                result[rows, start : start + width] += (b @ (a @ inputs)).t()
                magnitude[rows, start : start + width] += (b.abs() @ (a.abs() @ inputs.abs())).t()
                start += width
        return result, magnitude


def assert_rounded_once(actual: torch.Tensor, expected: torch.Tensor, magnitude: torch.Tensor) -> None:
    """The error of float32 sums (unit roundoff times terms times magnitudes), and one rounding to the dtype."""
    terms = INPUT + MAX_RANK + 2
    bound = terms * torch.finfo(torch.float32).eps * magnitude
    bound += torch.finfo(actual.dtype).eps / 2 * (expected.abs() + bound)
    assert bool(((actual.double() - expected).abs() <= bound).all())


def ids_of(requests: Requests) -> list[int]:
    return [adapter for adapter, rows in requests for _ in range(rows)]


def alternating(requests: Requests) -> list[int]:
    """Rows of all requests by turns, as in a decode step."""
    turns = [(turn, adapter) for adapter, rows in requests for turn in range(rows)]
    return [adapter for _, adapter in sorted(turns, key=lambda row: row[0])]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _kernel(chosen: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs with the compiled kernel, and with torch."""
    monkeypatch.setattr(install, "_library", chosen)


def wrapper_for(tokens: Sequence[int], samples: Sequence[int] = (0,)) -> GroupedPunicaWrapperCPU:
    wrapper = GroupedPunicaWrapperCPU(MAX_TOKENS, max_batches=MAX_TOKENS, device="cpu")
    map_step(wrapper, tokens, samples)
    return wrapper


def map_step(wrapper: PunicaWrapperCPU, tokens: Sequence[int], samples: Sequence[int] = (0,)) -> None:
    """As vLLM's runner and manager do: `is_prefill` always set, max_loras one more than there are slots."""
    mapping = LoRAMapping(tuple(tokens), tuple(samples), is_prefill=True)
    wrapper.update_metadata(mapping, SLOT_IDS, len(SLOT_IDS) + 1, VOCABULARY)


def linear(wrapper: PunicaWrapperCPU, y: torch.Tensor, x: torch.Tensor, layer: Layer) -> torch.Tensor:
    result = y.clone()
    wrapper.add_lora_linear(result, x, layer.a, layer.b, 1.0, layer.widths)
    return result


# -- linear layers


@settings(deadline=None, max_examples=50)
@given(REQUESTS, WIDTHS, st.sampled_from(DTYPES), st.booleans(), SEEDS)
def test_linear_is_the_dense_result_for_any_mix(
    requests: Requests, widths: list[int], dtype: torch.dtype, alternate: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    ids = alternating(requests) if alternate else ids_of(requests)
    layer = Layer.random(widths, dtype)
    x, y = torch.randn(len(ids), INPUT).to(dtype), torch.randn(len(ids), sum(widths) + 2).to(dtype)
    result = linear(wrapper_for(ids), y, x, layer)
    assert_rounded_once(result, *layer.expected(y, x, ids))
    untouched = torch.tensor(ids) == 0
    assert torch.equal(result[untouched], y[untouched])
    assert torch.equal(result[:, sum(widths) :], y[:, sum(widths) :])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ids", [[7, 0, 3, 7, 0, 3, 12, 7], [7] * 5 + [0] * 2 + [3] * 4])
def test_a_request_gets_the_same_alone_and_in_a_mix(ids: list[int], dtype: torch.dtype) -> None:
    layer = Layer.random((16, 6), dtype)
    x, y = torch.randn(len(ids), INPUT).to(dtype), torch.randn(len(ids), 22).to(dtype)
    mixed = linear(wrapper_for(ids), y, x, layer)
    for adapter in sorted(set(ids)):
        rows = torch.tensor(ids) == adapter
        alone = linear(wrapper_for([adapter] * int(rows.sum())), y[rows], x[rows], layer)
        # The same products, perhaps summed in another order: one unit in the last place.
        torch.testing.assert_close(mixed[rows], alone, rtol=torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize("ids", [[7, 0, 3] * 4, [7] * 4 + [0] * 4 + [3] * 4])
def test_an_adapter_of_nan_spoils_only_its_own_rows(ids: list[int]) -> None:
    layer = Layer.random((16,), torch.float32)
    layer.a[0][SLOT_IDS.index(7)] = float("nan")
    y = torch.randn(len(ids), 16)
    result = linear(wrapper_for(ids), y, torch.randn(len(ids), INPUT), layer)
    assert result.isnan().any(dim=1).tolist() == [adapter == 7 for adapter in ids]


def test_scale_and_leading_dimensions_are_kept() -> None:
    layer = Layer.random((16,), torch.float32)
    ids = [7, 7, 0, 3, 3, 3]
    x, y = torch.randn(1, 6, INPUT), torch.zeros(1, 6, 16)
    wrapper_for(ids).add_lora_linear(y, x, layer.a, layer.b, 0.5, layer.widths)
    expected, magnitude = layer.expected(torch.zeros(6, 16), x[0], ids)
    assert_rounded_once(y[0], expected / 2, magnitude)


def test_padding_rows_beyond_the_mapping_are_left_alone() -> None:
    layer = Layer.random((16,), torch.float32)
    x, y = torch.randn(9, INPUT), torch.randn(9, 16)
    result = linear(wrapper_for([7, 3, 7, 3]), y, x, layer)
    assert_rounded_once(result, *layer.expected(y, x, [7, 3, 7, 3, 0, 0, 0, 0, 0]))
    assert torch.equal(result[4:], y[4:])


def test_nothing_is_added_before_the_first_mapping() -> None:
    layer = Layer.random((16,), torch.float32)
    y = torch.randn(MAX_TOKENS, 16)
    wrapper = GroupedPunicaWrapperCPU(MAX_TOKENS, max_batches=4, device="cpu")
    assert torch.equal(linear(wrapper, y, torch.randn(MAX_TOKENS, INPUT), layer), y)
    assert not wrapper._embeddings_indices.any()


def test_a_warm_up_over_all_tokens_and_slots_works() -> None:
    requests = [(adapter, MAX_TOKENS // 4) for adapter in (7, 3, 12, 7)]
    layer = Layer.random((16,), torch.float32)
    x, y = torch.randn(MAX_TOKENS, INPUT), torch.randn(MAX_TOKENS, 16)
    assert_rounded_once(linear(wrapper_for(ids_of(requests)), y, x, layer), *layer.expected(y, x, ids_of(requests)))


def test_fewer_rows_than_mapped_follow_a_common_adapter_and_are_refused_otherwise() -> None:
    layer = Layer.random((16,), torch.float32)
    x, y = torch.randn(2, INPUT), torch.randn(2, 16)
    assert_rounded_once(linear(wrapper_for([3] * 5), y, x, layer), *layer.expected(y, x, [3, 3]))
    with pytest.raises(ValueError, match="2 rows of a step of 5"):
        linear(wrapper_for([3, 3, 7, 7, 7]), y, x, layer)


def test_a_slot_that_is_filled_again_is_used_with_its_new_weights() -> None:
    layer = Layer.random((16,), torch.float32)
    wrapper = wrapper_for([3, 3])
    x, y = torch.randn(2, INPUT), torch.randn(2, 16)
    linear(wrapper, y, x, layer)
    slot = SLOT_IDS.index(3)
    with torch.inference_mode():
        for stacked in layer.a + layer.b:
            stacked[slot] = 0
            stacked[slot, 0].copy_(torch.randn(stacked.shape[2:]))
    assert_rounded_once(linear(wrapper, y, x, layer), *layer.expected(y, x, [3, 3]))


# -- the two halves apart, as with fully sharded LoRA


@settings(deadline=None, max_examples=50)
@given(REQUESTS, st.sampled_from(DTYPES), st.booleans(), st.booleans(), SEEDS)
def test_shrink_then_expand_is_the_dense_result(
    requests: Requests, dtype: torch.dtype, alternate: bool, add_inputs: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    ids = alternating(requests) if alternate else ids_of(requests)
    layer = Layer.random((16, 6), dtype)
    x, y = torch.randn(len(ids), INPUT).to(dtype), torch.randn(len(ids), 25).to(dtype)
    wrapper = wrapper_for(ids)
    buffer = torch.zeros(2, len(ids), MAX_RANK)
    wrapper.add_shrink(buffer, x, layer.a, 1.0)
    result = y.clone()
    wrapper.add_expand(result, buffer, layer.b, layer.widths, offset_start=3, add_inputs=add_inputs)
    start = y[:, 3:].clone()
    if not add_inputs:
        start[torch.tensor(ids) != 0, :22] = 0
    assert_rounded_once(result[:, 3:], *layer.expected(start, x, ids))
    assert torch.equal(result[:, :3], y[:, :3])


# -- embeddings and logits


@settings(deadline=None, max_examples=50)
@given(REQUESTS, st.sampled_from(DTYPES), SEEDS)
def test_embedding_adds_the_chosen_rows_of_a(requests: Requests, dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    ids = ids_of(requests)
    layer = Layer.random((16,), dtype, inputs=VOCABULARY)
    tokens = torch.randint(VOCABULARY, (len(ids),))
    one_hot = torch.nn.functional.one_hot(tokens, VOCABULARY).to(dtype)
    wrapper = wrapper_for(ids)
    # As vLLM's layer does it: the A of all slots in one table, (slots * vocabulary, max rank).
    table = layer.a[0][:, 0].transpose(1, 2).reshape(-1, MAX_RANK)
    chosen = table[tokens + wrapper._embeddings_indices[: len(ids)]]
    y = torch.randn(len(ids), 16).to(dtype)
    result = y.clone()
    wrapper.add_lora_embedding(result, chosen, layer.b[0], add_input=True)
    assert_rounded_once(result, *layer.expected(y, one_hot, ids))


@settings(deadline=None, max_examples=50)
@given(REQUESTS, st.sampled_from(DTYPES), st.sampled_from([40, 50, 64]), SEEDS)
def test_logits_follow_the_sampled_rows(requests: Requests, dtype: torch.dtype, logits_width: int, seed: int) -> None:
    torch.manual_seed(seed)
    tokens, samples = ids_of(requests), [adapter for adapter, _ in requests]
    layer = Layer.random((50,), dtype)
    width = min(logits_width, 50)  # either side may be padded
    common = Layer(layer.a, (layer.b[0][:, :, :width],), (width,))
    x, y = torch.randn(len(samples), INPUT).to(dtype), torch.randn(len(samples), logits_width)
    result = y.clone()
    wrapper_for(tokens, samples).add_lora_logits(result, x, layer.a[0], layer.b[0], 1.0)
    assert_rounded_once(result, *common.expected(y, x, samples))


def test_prompt_log_probabilities_follow_a_common_adapter_and_leave_the_head_out_otherwise() -> None:
    layer = Layer.random((50,), torch.float32)
    x, y = torch.randn(12, INPUT), torch.randn(12, 50)
    result = y.clone()
    wrapper_for([7] * 12, [7]).add_lora_logits(result, x, layer.a[0], layer.b[0], 1.0)
    assert_rounded_once(result, *layer.expected(y, x, [7] * 12))
    result = y.clone()
    wrapper_for([7] * 12 + [3], [7, 3]).add_lora_logits(result, x, layer.a[0], layer.b[0], 1.0)
    assert torch.equal(result, y)


def test_a_full_classification_head_touches_no_row_without_an_adapter() -> None:
    weight = torch.randn(len(SLOT_IDS), 1, 5, INPUT)
    enabled = torch.ones(len(SLOT_IDS), dtype=torch.bool)
    x, y = torch.randn(3, INPUT), torch.randn(3, 5)
    result = y.clone()
    wrapper_for([7, 0, 12], [7, 0, 12]).apply_lora_full_linear(
        result, x, weight, torch.zeros(len(SLOT_IDS), 5), enabled
    )
    assert torch.equal(result[1], y[1])
    torch.testing.assert_close(result[[0, 2]], torch.stack([weight[0, 0] @ x[0], weight[3, 0] @ x[2]]))


# -- under torch.compile, which vLLM does not use with LoRA on the CPU


def compiled(wrapper: PunicaWrapperCPU, layer: Layer, fullgraph: bool) -> Callable[..., torch.Tensor]:
    torch._dynamo.reset()
    return torch.compile(lambda y, x: linear(wrapper, y, x, layer) * 1.0, backend="eager", fullgraph=fullgraph)


def test_a_compiled_model_uses_the_groups_of_each_step() -> None:
    layer = Layer.random((16,), torch.float32)
    x, y = torch.randn(6, INPUT), torch.randn(6, 16)
    wrapper = wrapper_for([7, 7, 0, 0, 3, 3])
    forward = compiled(wrapper, layer, fullgraph=False)
    for ids in ([7, 7, 0, 0, 3, 3], [0, 3, 7, 7, 7, 12], [12] * 6):
        map_step(wrapper, ids)
        assert_rounded_once(forward(y, x), *layer.expected(y, x, ids))


def test_a_graph_that_would_freeze_the_groups_is_refused() -> None:
    forward = compiled(wrapper_for([7]), Layer.random((16,), torch.float32), fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="groups of rows change with every step"):
        forward(torch.randn(1, 16), torch.randn(1, INPUT))


# -- why all this


@needs_tested_vllm
def test_vllm_gives_rows_without_an_adapter_the_last_slots_update() -> None:
    """vllm-project/vllm issues 48421 and 49656. When this fails, vLLM is mended: look whether we are still needed."""
    layer = Layer.random((16,), torch.float32)
    stock = PunicaWrapperCPU(MAX_TOKENS, max_batches=MAX_TOKENS, device="cpu")
    map_step(stock, [7, 0, 0])
    x, y = torch.randn(3, INPUT), torch.randn(3, 16)
    last = SLOT_IDS[-1]
    assert last is not None
    assert_rounded_once(linear(stock, y, x, layer), *layer.expected(y, x, [7, last, last]))


@needs_tested_vllm
def test_vllm_fails_on_prompt_log_probabilities_of_a_mixed_step() -> None:
    layer = Layer.random((50,), torch.float32)
    stock = PunicaWrapperCPU(MAX_TOKENS, max_batches=MAX_TOKENS, device="cpu")
    map_step(stock, [7] * 12 + [3], [7, 3])
    with pytest.raises(RuntimeError):
        stock.add_lora_logits(torch.randn(12, 50), torch.randn(12, INPUT), layer.a[0], layer.b[0], 1.0)
