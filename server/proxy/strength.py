"""The strength alpha of a request, as numbers of few digits that an adapter can carry."""

import struct

PATH = "proxy_alpha"
"""The module of the composite model from 1 input to 3 outputs: alpha's two parts, and whether it is given at all.

Its own weights are zero: all of that comes from adapters, and adds up with nothing that an engine could round.
"""
GIVEN = 1.0
"""The third output, where an adapter carries a strength."""


def split(alpha: float) -> tuple[float, float]:
    """A high and a low part, each exact in bfloat16, whose sum is alpha to 16 binary digits.

    One number in bfloat16 would keep 8 of them: 0.3 would come out as 0.30078.
    """
    high = rounded(alpha)
    return high, rounded(alpha - high)


def rounded(value: float) -> float:
    """The nearest number in bfloat16, ties to even; for finite values far below its largest, 3e38."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    bits += 0x7FFF + (bits >> 16 & 1)
    (nearest,) = struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))
    return float(nearest)
