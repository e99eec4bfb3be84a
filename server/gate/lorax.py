"""LoRAX's way to ask for a mixture: the field `merged_adapters`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loraloom.adapters.methods import EXACT, Method
from loraloom.adapters.names import MAX_TERMS, Mixture, Term, parse_adapter
from loraloom.server.errors import InvalidBody

Weight = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _MergedAdapters(BaseModel):
    """The field as LoRAX documents it (https://loraexchange.ai/guides/merging_adapters)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ids: list[str] = Field(min_length=1, max_length=MAX_TERMS)
    weights: list[Weight] | None = Field(None, max_length=MAX_TERMS)
    merge_strategy: Literal["linear", "ties", "dare_linear", "dare_ties"] | None = None
    density: Weight | None = None
    majority_sign_method: Literal["total", "frequency"] | None = None


def merged_adapters(value: object) -> Mixture:
    """The mixture that the field asks for: `linear` is the weighted sum of the updates, our `exact`.

    (LoRAX's own `linear` adds the factors A and B separately, which has cross terms: our `lorahub`.)

    Raises:
        InvalidBody: it has not LoRAX's form.
        InvalidName: an id is no adapter.
    """
    try:
        field = _MergedAdapters.model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part)[:50] for part in ("merged_adapters", *problem["loc"]))
        raise InvalidBody(f"{where}: {problem['msg']}", param="merged_adapters") from error
    weights = field.weights or [1.0] * len(field.ids)
    if len(weights) != len(field.ids):
        raise InvalidBody(
            f"merged_adapters: {len(field.ids)} ids and {len(weights)} weights: give one each", param="merged_adapters"
        )
    terms = (Term(weight, parse_adapter(name)) for weight, name in zip(weights, field.ids, strict=True))
    return Mixture(tuple(terms), _method(field))


def _method(field: _MergedAdapters) -> Method:
    if field.merge_strategy in (None, "linear"):
        return EXACT
    assert field.merge_strategy is not None
    return Method(field.merge_strategy, (("density", 0.5 if field.density is None else field.density),))
