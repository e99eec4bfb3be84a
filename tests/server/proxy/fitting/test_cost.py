"""What proxy-tuning costs, for pairs whose numbers are known."""

import pytest

from loraloom.server.proxy.fitting.architecture import parse_architecture
from loraloom.server.proxy.fitting.cost import Load, load, separate, shared
from tests.server.proxy import configurations as known

PAIRS = [
    (known.LLAMA2_70B, known.LLAMA2_7B, 4.2, 0.0977, 0.0962),
    (known.LLAMA31_70B, known.LLAMA31_8B, 1.8, 0.1138, 0.1080),
    (known.QWEN25_32B, known.QWEN25_15B, 1.219, 0.0471, 0.0483),
]
"""Two models, the ratio of the KV cache, and what share of the large one the small one's weights are, held and read."""


def alone(config: known.Config) -> Load:
    return load(parse_architecture(config))


@pytest.mark.parametrize(("large", "small", "cache", "held", "read"), PAIRS)
def test_an_adapter_of_the_small_model(
    large: known.Config, small: known.Config, cache: float, held: float, read: float
) -> None:
    cost = shared(alone(large), alone(small))
    assert cost.cache == pytest.approx(cache, abs=1e-3)
    assert cost.weights == pytest.approx(1 + held, abs=1e-4)
    assert cost.read == pytest.approx(1 + read, abs=1e-4)
    assert cost.operations == pytest.approx(1 + 2 * read, abs=2e-4)


@pytest.mark.parametrize(("large", "small", "cache", "held", "read"), PAIRS)
def test_an_expert_of_its_own(large: known.Config, small: known.Config, cache: float, held: float, read: float) -> None:
    cost = separate(alone(large), alone(small), alone(small))
    assert cost.cache == pytest.approx(cache, abs=1e-3)
    assert cost.weights == pytest.approx(1 + 2 * held, abs=2e-4)
    assert cost.read == pytest.approx(1 + 2 * read, abs=2e-4)
    assert cost.operations == pytest.approx(1 + 2 * read, abs=2e-4)


def test_one_model() -> None:
    llama = alone(known.LLAMA2_7B)
    assert llama.cache == 2 * 2 * 32 * 4096
    assert llama.weights == pytest.approx(13.48e9, rel=1e-3)
    assert llama.weights - llama.read == 2 * 32000 * 4096
    assert llama.operations == llama.read


def test_a_tied_table_is_read_as_the_output_layer() -> None:
    tied = alone(known.LLAMA32_1B)
    assert tied.read == tied.weights


def test_idle_experts_are_held_and_not_read() -> None:
    sparse = alone(known.QWEN3_30B_A3B)
    assert sparse.weights == pytest.approx(61.06e9, rel=1e-3)
    assert sparse.operations == pytest.approx(2 * 3.04e9, rel=5e-3)


def test_packed_weights_are_the_bytes_that_they_are() -> None:
    architecture = parse_architecture(known.LLAMA31_70B)
    packed = load(architecture, stored=39_770_000_000)
    assert packed.weights == 39_770_000_000
    assert packed.read == packed.weights - 2 * 128256 * 8192
    assert packed.operations == alone(known.LLAMA31_70B).operations
    assert shared(packed, alone(known.LLAMA31_8B)).weights == pytest.approx(1.404, abs=1e-3)


def test_counted_parameters_are_taken_before_those_of_the_configuration() -> None:
    architecture = parse_architecture(known.LLAMA2_7B)
    assert load(architecture, parameters=7_000_000_000).weights == 14_000_000_000
