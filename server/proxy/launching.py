"""What proxy-tuning adds to the command that starts the engine's server."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loraloom.adapters.errors import InvalidName
from loraloom.adapters.names import check_name
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
    "--lora-target-modules": "the module that carries a request's strength would be left out",
    "--model-impl": "the small model's attention has to be vLLM's own, to run it as expert and antiexpert",
    "--tokenizer": "what is compared is the tokenizers of both models; put the other one into the models' folders",
    "--hf-config-path": "what is compared is the models' own config.json",
    "--revision": "what is compared is the models as they lie here; give a folder of that revision",
    "--quantization": "it would quantize the small model too; give a large model that is stored quantized",
}
"""Arguments of vLLM that do not go with a composite model, and why."""
LOADERS = ("auto", "hf", "safetensors", "pt", "dummy")
"""The values of `--load-format` that read the small model's checkpoint too."""
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
    _check_names(settings)
    fit = check_fit(large, small, settings.proxy_expert)
    fit.raise_if_refused()
    _check_parallel(fit, extra)
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
    if (loader := given(extra, "--load-format")) not in (None, *LOADERS):
        raise InvalidSettings(
            f"--load-format {loader} does not go with --proxy-small: it reads one checkpoint only; give one of "
            f"{', '.join(LOADERS)}"
        )
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
    if not chosen.isdecimal() or int(chosen) > small:
        raise ProxyMismatch(f"--max-model-len {chosen}: the small model knows {small} positions; give at most that")
    return ()


def _check_parallel(fit: Fit, extra: Sequence[str]) -> None:
    """Raise `ProxyMismatch` where tensor parallelism does not divide the small model's attention heads."""
    ways = given(extra, "--tensor-parallel-size") or given(extra, "-tp") or "1"
    heads = fit.small.architecture.query_heads
    if ways.isdecimal() and int(ways) > 0 and heads % int(ways):
        raise ProxyMismatch(f"--tensor-parallel-size {ways} does not divide the small model's {heads} attention heads")


def _check_names(settings: Settings) -> None:
    """Raise `InvalidSettings` where requests could not tell the models apart, or not reach the plain large one."""
    if settings.base_name == settings.small_name:
        raise InvalidSettings(f"both models are called {settings.small_name!r}: give the large one a --served-name")
    if settings.proxy_expert is not None:
        try:
            check_name(settings.base_name)
        except InvalidName as error:
            raise InvalidSettings(
                f"with --proxy-expert, the plain large model is selected by its name and '~0', and {error}: give it a "
                "--served-name"
            ) from error


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
        weights=one.weights + _as_wide(one, other) * (1 if expert is None else 2),
        token=one.token + 2 * other.token,
        rank=one.rank + other.rank,
        context=min(one.context, other.context),
    )


def _as_wide(large: Footprint, small: Footprint) -> int:
    """Bytes of the small model's weights, where those of 16 bits are widened only if the large model's are."""
    return small.weights * (2 if small.sixteen_bits and not large.sixteen_bits else 1)
