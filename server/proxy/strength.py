"""The strength alpha of a request, as two numbers of few digits that an adapter can carry."""

import struct

PATH = "proxy_alpha"
"""The module of the composite model that outputs the strength, from 1 input to 2 outputs whose sum it is."""


def split(alpha: float) -> tuple[float, float]:
    """A high and a low part, each exact in bfloat16, whose sum is alpha to 16 binary digits.

    One number in bfloat16 would keep 8 of them: 0.3 would come out as 0.30078.
    """
    high = rounded(alpha)
    return high, rounded(alpha - high)


def change(alpha: float, unadapted: float) -> tuple[float, float]:
    """What an adapter adds to the two parts of the strength without it, so that their sum becomes alpha.

    The engine adds in its own precision, which may be bfloat16: the low part makes up for what the high one loses. For
    an `unadapted` of few digits, such as 1 or 0.75, the high part loses nothing, so that float32 gives the same.
    """
    high, low = split(unadapted)
    nearest = rounded(high + rounded(alpha - high))
    more = rounded(nearest - high)
    rest = alpha - rounded(high + more)
    return more, rounded(rest - low)


def rounded(value: float) -> float:
    """The nearest number in bfloat16, ties to even; for finite values far below its largest, 3e38."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    bits += 0x7FFF + (bits >> 16 & 1)
    (nearest,) = struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))
    return float(nearest)
