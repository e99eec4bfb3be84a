"""What proxy-tuning adds to the command that starts the engine's server."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loraloom.server.errors import InvalidSettings, ProxyMismatch
from loraloom.server.footprint import Footprint, read_footprint
from loraloom.server.proxy.fitting.fit import Fit, check_fit
from loraloom.server.proxy.pair import Pair
from loraloom.server.settings import Settings
from loraloom.server.tuning import given

REFUSED = {
    "--hf-overrides": "it makes the large model a part of the composite one; change its config.json instead",
    "--speculative-config": "a draft model proposes tokens of the large model alone",
    "--spec-method": "a draft model proposes tokens of the large model alone",
    "--spec-model": "a draft model proposes tokens of the large model alone",
    "--fully-sharded-loras": "the small model's rows are expert and antiexpert, and only the first get adapters",
    "--enable-prompt-embeds": "the small model needs the tokens",
    "--quantization": "it would quantize the small model too; give a large model that is stored quantized",
}
"""Arguments of vLLM that do not go with a composite model, and why."""
SHORT = {"-q": "--quantization", "-sc": "--speculative-config"}
"""Their short forms, to which a value can be attached."""


@dataclass(frozen=True)
class ProxyLaunch:
    """What to add.

    Attributes:
        arguments: for vLLM.
        notes: what the user is told, a line each.
        footprint: what all models together take; None where that is not known.
    """

    arguments: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    footprint: Footprint | None = None


def plan_proxy(settings: Settings, extra: Sequence[str]) -> ProxyLaunch:
    """Decide how to compose the large model with the small one; without a small one, nothing is added.

    Args:
        settings: the merged settings.
        extra: the user's own arguments for vLLM.

    Raises:
        ProxyMismatch: the models do not fit together.
        InvalidSettings: an argument in `extra` that does not go with it.
        InvalidBase: a model is not within reach.
    """
    large, small = str(settings.model), settings.proxy_small
    if small is None:
        return ProxyLaunch(footprint=read_footprint(Path(large)))
    _refuse(extra)
    if settings.base_name == settings.small_name:
        raise InvalidSettings(f"both models are called {settings.small_name!r}: give the large one a --served-name")
    fit = check_fit(large, small, settings.proxy_expert)
    fit.raise_if_refused()
    pair = Pair(fit.large.architecture.architectures, small, settings.proxy_expert, settings.proxy_alpha)
    length = _length(fit, extra)
    return ProxyLaunch(
        arguments=("--hf-overrides", pair.overrides(), *length),
        notes=tuple(_notes(settings, fit)),
        footprint=_together(Path(large), Path(small), settings.proxy_expert),
    )


def _refuse(extra: Sequence[str]) -> None:
    short = [flag for begins, flag in SHORT.items() if any(word.startswith(begins) for word in extra)]
    whole = [word.partition(".")[0] for word in extra]  # vLLM takes one field of a flag too, as in --hf-overrides.name
    for flag, reason in REFUSED.items():
        if flag in short or given(whole, flag) is not None:
            raise InvalidSettings(f"{flag} does not go with --proxy-small: {reason}")
    for flag in ("--pipeline-parallel-size", "-pp"):
        if given(extra, flag) not in (None, "1"):
            raise InvalidSettings(
                f"{flag} does not go with --proxy-small: the small model's layers cannot be divided as the large "
                "one's are. Use --tensor-parallel-size"
            )


def _length(fit: Fit, extra: Sequence[str]) -> tuple[str, ...]:
    """The longest sequence, where the small model's is shorter and the user has not chosen."""
    own, small = (model.architecture.max_position_embeddings for model in (fit.large, fit.small))
    chosen = given(extra, "--max-model-len")
    if not 0 < small < own:
        return ()
    if chosen is None:
        return ("--max-model-len", str(small))
    if chosen.isdecimal() and int(chosen) > small:
        raise ProxyMismatch(f"--max-model-len {chosen}: the small model knows {small} positions; give that or less")
    return ()


def _notes(settings: Settings, fit: Fit) -> Iterator[str]:
    expert = fit.expert.name if fit.expert else f"{fit.small.name} with the request's adapter"
    yield f"proxy-tuning: {fit.large.name} + {settings.proxy_alpha:g} * ({expert} - {fit.small.name})"
    yield from (f"proxy-tuning: {note}" for note in fit.notes)


def _together(large: Path, small: Path, expert: str | None) -> Footprint | None:
    """What the large model and the small one, which runs twice, take in memory."""
    one, other = read_footprint(large), read_footprint(small)
    if one is None or other is None:
        return None
    return replace(
        one,
        weights=one.weights + other.weights * (1 if expert is None else 2),
        token=one.token + 2 * other.token,
        rank=one.rank + other.rank,
        context=min(one.context, other.context),
    )
