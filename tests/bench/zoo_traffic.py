"""Requests for the adapters of `zoo_store`: always the same prompts, so that only what they ask for differs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice

from loraloom.demo.catalog import demo_adapters
from tests.bench.load import Body
from tests.bench.popularity import drawn, uniform, zipf
from tests.bench.zoo_store import names

SLOTS = 8
"""Adapters that the first traffic asks for: as many as fit into one batch."""
REQUESTS = 16
"""Of one round: few, so that all servers meet the same moment of the machine."""
TOKENS = 16
"""Of each answer."""
PROMPTS = tuple(chain(*zip(*([prompt for prompt, _ in adapter.examples] for adapter in demo_adapters()), strict=True)))
"""The demo's, of each task in turn."""


@dataclass(frozen=True)
class Traffic:
    """What requests ask for.

    Attributes:
        about: its name in the results.
        chosen: the numbers of the adapters that one round asks for, by the size of the store and the round.
    """

    about: str
    chosen: Callable[[int, int], Sequence[int]]

    def bodies(self, size: int, number: int) -> list[Body]:
        """The requests of one round to a store of that size."""
        known = names(size)
        asked = zip(self.chosen(size, number), cycle(PROMPTS), strict=False)
        return [_body(known[adapter], prompt) for adapter, prompt in asked]


def _in_turn(size: int, number: int) -> Sequence[int]:
    return list(islice(cycle(range(SLOTS)), REQUESTS))


def _of_all(shares: Callable[[int], list[float]]) -> Callable[[int, int], Sequence[int]]:
    return lambda size, number: drawn(shares(size), REQUESTS, seed=number)


SAME = Traffic(f"{SLOTS} in turn", _in_turn)
POPULARITIES = (Traffic("Zipf", _of_all(zipf)), Traffic("uniform", _of_all(uniform)))


def _body(model: str, prompt: str) -> Body:
    fixed = {"temperature": 0, "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    return {"model": model, "prompt": prompt, **fixed}
