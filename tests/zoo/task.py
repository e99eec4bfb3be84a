"""A task: a seeded source of prompts whose one right answer is known."""

import random
from collections.abc import Callable
from dataclasses import dataclass

HELD_OUT = 100
"""Prompts on which every accuracy is measured."""


@dataclass(frozen=True)
class Example:
    """One user message and the one answer that counts as right."""

    prompt: str
    expected: str

    def accepts(self, answer: str) -> bool:
        """Whether an answer is right: equal to the expected one, white space around it aside."""
        return answer.strip() == self.expected


@dataclass(frozen=True)
class Task:
    """A kind of question.

    Attributes:
        name: the adapter's name.
        about: what the adapter does, in one line.
        draw: makes one (prompt, expected answer) from a source of randomness.
    """

    name: str
    about: str
    draw: Callable[[random.Random], tuple[str, str]]

    def split(self, train: int, seed: int = 0) -> tuple[list[Example], list[Example]]:
        """Draw distinct prompts: `HELD_OUT` to measure on, then up to `train` others to learn from.

        The held-out prompts depend on the seed alone, not on `train`. A task with few possible prompts gives
        fewer than `train`.
        """
        source = random.Random(f"{self.name} {seed}")
        drawn: dict[str, str] = {}
        for _ in range(20 * (HELD_OUT + train)):
            prompt, expected = self.draw(source)
            drawn.setdefault(prompt, expected)
            if len(drawn) == HELD_OUT + train:
                break
        examples = [Example(prompt, expected) for prompt, expected in drawn.items()]
        return examples[HELD_OUT:], examples[:HELD_OUT]
