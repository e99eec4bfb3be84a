"""Facts of an adapter, each as a line for people."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from loraloom.adapters.store.facts import Fact

NEXT_TO_NOTHING = 1e-3
"""Nats. A server's own rounding moves log-probabilities as far."""

_SHOWN = 3


def fact_text(kind: str, fact: Fact) -> str:
    """What a fact says; a kind that is not known here, and one that lacks something, is given as JSON."""
    try:
        return _TEXTS[kind](fact)
    except (KeyError, TypeError, ValueError):
        return json.dumps(fact, ensure_ascii=False)


def _update(fact: Mapping[str, Any]) -> str:
    spread = f"{fact['min']:.2g} to {fact['max']:.2g} a module"
    text = f"{fact['modules']} modules, rank {fact['rank']}, |dW| {fact['norm']:.2g} ({spread})"
    if zero := fact["zero"]:
        more = ", …" if len(zero) > _SHOWN else ""
        text += f", {len(zero)} of them zero: {', '.join(zero[:_SHOWN])}{more}"
    return text


def _conversion(fact: Mapping[str, Any]) -> str:
    text = f"{fact['kind']}, {'exact' if fact['exact'] else 'approximated'} at rank {fact['rank']}"
    text += f", relative error {fact['relative_error']:.2g}"
    if fact["kl"] is not None:
        text += f", KL {fact['kl']:.2g} nats"
    if fact["top1"] is not None:
        text += f", same most probable token in {fact['top1']:.1%} of {fact['tokens']}"
    return text


def _effect(fact: Mapping[str, Any]) -> str:
    most = fact["max_logprob_change"]
    text = f"log-probabilities move by {fact['mean_logprob_change']:.2g} nats on average, by {most:.2g} at most"
    text += f", over {fact['tokens']} tokens of {json.dumps(fact['prompt'], ensure_ascii=False)}"
    return text if most >= NEXT_TO_NOTHING else f"WARNING, it changes next to nothing: {text}"


_TEXTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "update": _update,
    "conversion": _conversion,
    "effect": _effect,
}
