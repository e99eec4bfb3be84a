"""Adapters of other kinds, and fully fine-tuned models, become plain LoRA; how closely is measured.

The original is loaded and asked for its predictions; its updates are truncated one after the other and written; then a
fresh base with the LoRA that was written is asked for the same predictions.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from loraloom.adapters.arithmetic.factors import Factors
from loraloom.adapters.convert.dense import ChooseRank, discarded, energy_rank, numerical_rank, truncate
from loraloom.adapters.convert.files import private_copy, write_lora
from loraloom.adapters.convert.finetuned import updates_between
from loraloom.adapters.convert.kinds import Kind, kind_of
from loraloom.adapters.convert.models import load_model, load_tokenizer
from loraloom.adapters.convert.options import DEFAULTS, ENERGY, RANK_CAP, Conversion, Options
from loraloom.adapters.convert.original import put_on
from loraloom.adapters.convert.probe import Divergence, Probe, compare, predictions, read_probe
from loraloom.adapters.errors import ConversionTooRough, InvalidAdapter, UnsupportedAdapter

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["Conversion", "Options", "convert", "extract"]

EXACT_ERROR = 1e-5
"""Relative error up to which a conversion is exact: what float32 factors and float64 singular values leave."""
EXACT_KL = 1e-6
"""Nats up to which float32 arithmetic explains what an exact conversion predicts differently."""


# Of these, peft computes parts from the base or makes them anew on loading, in the base's type.
_WIDE = frozenset({"AdaLoRA", "AdaMSS", "FRoD", "OSF"})


@dataclass(frozen=True)
class _Shortened:
    """Updates of low rank, and the relative Frobenius error of all of them together."""

    factors: dict[str, Factors]
    relative_error: float

    @property
    def rank(self) -> int:
        return max(factors.rank for factors in self.factors.values())


@dataclass(frozen=True)
class _Measured:
    """How the predictions on the probe text differ from the original's: the base's, and the converted adapter's."""

    probe: Probe
    base_kl: float
    converted: Divergence


def convert(folder: Path, out: Path, base: str | Path, options: Options = DEFAULTS) -> Conversion:
    """Write the adapter in `folder` as plain LoRA to `out`, and measure what was lost.

    In memory at once: the base in its own type (in float32 where the adapter changes it, and for `_WIDE` kinds),
    four float64 copies of one layer, and the predictions on the probe text.

    Args:
        folder: an adapter as peft saved it.
        out: an existing empty folder. Its files are to be used only when this returns.
        base: the model that the adapter was trained on: a folder, or an id of the Hugging Face Hub.

    Raises:
        InvalidAdapter: the files are damaged or unsafe, or change nothing.
        UnsupportedAdapter: it is plain already, or of a kind that cannot be converted.
        ConversionTooRough: it can, but not within `options`.
        BaseMismatch: it does not fit the base.
        InvalidBase: the base cannot be loaded.
    """
    kind = kind_of(folder)
    if kind.treatment == "plain":
        raise UnsupportedAdapter(f"it is plain LoRA ({kind.name}) already: add it as it is")
    probe = read_probe(options.probe, load_tokenizer(base))
    wanted, shortened = _read_original(folder, base, kind, options, probe)
    write_lora(shortened.factors, out, str(base))
    return _judged(kind, shortened, _measured(load_model(base), out, wanted, probe), options)


def extract(checkpoint: Path, base: str | Path, out: Path, options: Options = DEFAULTS) -> Conversion:
    """Write what a fully fine-tuned model learned beyond its base as plain LoRA to `out`, and measure what was lost.

    In memory at once: both models in their own types, four float64 copies of one layer, and the predictions.

    Args:
        checkpoint: the fine-tuned model, as transformers saved it.
        base: what it was trained from: a folder, or an id of the Hugging Face Hub.
        out: an existing empty folder. Its files are to be used only when this returns.

    Raises:
        InvalidAdapter: both models are the same.
        UnsupportedAdapter: they differ in more than linear layers.
        ConversionTooRough: the difference is no LoRA within `options`.
        BaseMismatch: they are not of one architecture.
        InvalidBase: one of them cannot be loaded.
    """
    kind = Kind("fine-tuned model", "approximate")
    probe = read_probe(options.probe, load_tokenizer(base))
    model, tuned = load_model(base), load_model(checkpoint)
    wanted = predictions(tuned, probe)
    shortened = _shorten(updates_between(tuned, model), _chooser(kind, options))
    del tuned
    write_lora(shortened.factors, out, str(base))
    return _judged(kind, shortened, _measured(model, out, wanted, probe), options)


def _read_original(
    folder: Path, base: str | Path, kind: Kind, options: Options, probe: Probe
) -> tuple["Tensor", _Shortened]:
    """The predictions of the adapter as it is, and its updates made short; the model is let go."""
    model = load_model(base, "float32" if kind.changes_base or kind.name in _WIDE else "auto")
    with TemporaryDirectory() as scratch:
        original = put_on(model, private_copy(folder, Path(scratch, "adapter")), changes_base=kind.changes_base)
    return predictions(original.model, probe), _shorten(original.updates(), _chooser(kind, options))


def _measured(model: "PreTrainedModel", folder: Path, wanted: "Tensor", probe: Probe) -> _Measured:
    """How the base predicts without and with the LoRA that was written, as peft loads it.

    Args:
        model: the base; is changed.
        wanted: the original's predictions.
    """
    from peft import PeftModel

    plain = compare(wanted, predictions(model, probe))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = PeftModel.from_pretrained(model, str(folder), torch_device="cpu").eval()
    return _Measured(probe, plain.kl, compare(wanted, predictions(adapted, probe)))


def _shorten(updates: Iterable[tuple[str, "Tensor"]], choose: ChooseRank) -> _Shortened:
    factors, lost, whole = {}, 0.0, 0.0
    for path, update in updates:
        size = float(update.norm())
        if not size < float("inf"):
            raise InvalidAdapter(
                f"the update of {path} holds NaN or infinity: take a checkpoint from before it diverged"
            )
        if size > 0:
            factors[path] = truncate(update, choose)
            lost += discarded(update, factors[path]) ** 2
            whole += size**2
    if not factors:
        raise InvalidAdapter("it changes nothing: every update is zero. Was it saved before training?")
    return _Shortened(factors, sqrt(lost / whole))


def _chooser(kind: Kind, options: Options) -> ChooseRank:
    if options.rank is not None:
        rank = options.rank
        return lambda squares: min(rank, numerical_rank(squares))
    if options.energy is not None:
        return partial(_rank_for_energy, energy=options.energy, cap=options.max_rank)
    if kind.treatment == "exact":
        return partial(_whole_rank, limit=options.max_rank)
    return partial(_rank_for_energy, energy=ENERGY, cap=min(RANK_CAP, options.max_rank))


def _rank_for_energy(squares: "Tensor", energy: float, cap: int) -> int:
    return min(energy_rank(squares, energy), cap)


def _whole_rank(squares: "Tensor", limit: int) -> int:
    rank = numerical_rank(squares)
    if rank > limit:
        raise UnsupportedAdapter(
            f"as plain LoRA it has rank {rank}, and the limit is {limit}: raise the limit, or give a rank or an energy "
            "to truncate it to"
        )
    return rank


def _judged(kind: Kind, made: _Shortened, measured: _Measured, options: Options) -> Conversion:
    """The record of a conversion that is close enough."""
    whole = kind.treatment == "exact" and options.rank is None and options.energy is None
    limit = EXACT_KL if whole else max(options.kl_limit(measured.base_kl), EXACT_KL)
    kl = measured.converted.kl
    if not kl <= limit or (whole and made.relative_error > EXACT_ERROR):
        advice = (
            f"{kind.name} should become LoRA without any loss, so this is a fault of LoraLoom's, or of the installed "
            "peft's. Please report it with the adapter's configuration"
            if whole
            else "give a larger rank or energy or, where the loss is acceptable, a larger limit, and measure it on a "
            "text of the kind that the adapter is for (probe)"
        )
        raise ConversionTooRough(kl, limit, made.rank, made.relative_error, advice)
    return Conversion(
        kind=kind.name,
        exact=made.relative_error <= EXACT_ERROR,
        rank=made.rank,
        relative_error=made.relative_error,
        kl=kl,
        base_kl=measured.base_kl,
        top1=measured.converted.top1,
        tokens=measured.probe.tokens,
        modules=len(made.factors),
        probe=measured.probe.name,
    )
