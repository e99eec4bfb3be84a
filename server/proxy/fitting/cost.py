"""What proxy-tuning costs beside the large model alone, by arithmetic over sizes.

The small model runs twice, as expert and as antiexpert. Where both have the same weights (the expert is the small model
with an adapter), these are held and read once; where the expert has weights of its own, these are held and read too.
Keys and values are those of three models either way.

Left out: the adapter itself (a hundredth of the small model, as a rule) and the part of attention that grows with the
context, which grows as the KV cache does.
"""

from dataclasses import dataclass

from loraloom.server.proxy.fitting.architecture import Architecture

_BYTES = 2  # of a weight that is not quantized, as engines hold it


@dataclass(frozen=True)
class Load:
    """What one model takes.

    Attributes:
        weights: bytes of its weights in memory.
        cache: bytes in the KV cache for one token.
        read: bytes of weights that are read to decode one token of one sequence.
        operations: floating-point operations for one token, two a weight.
    """

    weights: float
    cache: float
    read: float
    operations: float

    def __add__(self, other: "Load") -> "Load":
        return Load(
            self.weights + other.weights,
            self.cache + other.cache,
            self.read + other.read,
            self.operations + other.operations,
        )

    def over(self, other: "Load") -> "Load":
        """Each number as a multiple of the other's."""
        return Load(
            self.weights / other.weights,
            self.cache / other.cache,
            self.read / other.read,
            self.operations / other.operations,
        )


def load(architecture: Architecture, parameters: int | None = None, stored: int | None = None) -> Load:
    """What a model takes by itself.

    The rows of the embedding table are looked up, so it is not read; the output layer is, also where it is the same
    table. Of the experts of a layer those are read that a token passes.

    Args:
        architecture: its sizes.
        parameters: its weights, where they have been counted.
        stored: their bytes where they are quantized.
    """
    every = parameters or architecture.parameters
    table = 0 if architecture.tied else architecture.embedding
    active = every - table - architecture.idle
    weights = stored or _BYTES * every
    return Load(
        weights=weights,
        cache=_BYTES * architecture.cached,
        # A quantized model keeps its embedding table in 16 bits.
        read=(weights - _BYTES * table) * active / (every - table),
        operations=2 * active,
    )


def shared(large: Load, small: Load) -> Load:
    """The ratios to the large model alone where expert and antiexpert have the same weights."""
    second = Load(weights=0, cache=small.cache, read=0, operations=small.operations)
    return (large + small + second).over(large)


def separate(large: Load, small: Load, expert: Load) -> Load:
    """The ratios to the large model alone where the expert has weights of its own."""
    return (large + small + expert).over(large)
