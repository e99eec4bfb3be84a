"""The strength as two numbers in bfloat16, against torch's own rounding."""

import struct

import torch
from hypothesis import given
from hypothesis import strategies as st

from loraloom.server.proxy.strength import rounded, split

ALPHAS = st.integers(-4000, 4000).map(lambda thousandths: thousandths / 1000)
NORMAL = st.floats(min_value=2**-126, max_value=2.0**127, width=32)


def bfloat16(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float32).to(torch.bfloat16)


@given(st.one_of(NORMAL, NORMAL.map(lambda value: -value), st.just(0.0)))
def test_rounding_is_torchs(value: float) -> None:
    assert rounded(value) == bfloat16(value).item()


@given(st.integers(0x0080, 0x7F00), st.sampled_from([1, -1]))
def test_ties_go_to_even(upper: int, sign: int) -> None:
    """Halfway between two neighbours, whose last bits differ."""
    (tie,) = struct.unpack("<f", struct.pack("<I", upper << 16 | 0x8000))
    assert rounded(sign * tie) == bfloat16(sign * tie).item()


@given(ALPHAS)
def test_both_parts_are_exact_and_their_sum_is_alpha(alpha: float) -> None:
    parts = split(alpha)
    assert [bfloat16(part).item() for part in parts] == list(parts)
    assert abs(sum(parts) - alpha) <= 2**-16 * abs(alpha)


def test_one_part_would_not_do() -> None:
    high, low = split(0.3)
    assert high == 0.30078125
    assert abs(high + low - 0.3) < 1e-6
