"""The ways to mix adapters, and the parameters that each takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from loraloom.adapters.errors import InvalidName
from loraloom.adapters.scanner import number_text


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a method's parameter may be: a number of one type, within bounds, needed or not."""

    kind: type[int] | type[float]
    low: float
    high: float
    required: bool

    def read(self, key: str, value: float) -> float:
        if not self.low <= value <= self.high or value != self.kind(value):
            kind = "an integer" if self.kind is int else "a number"
            bounds = f"from {number_text(self.low)} to {number_text(self.high)}"
            raise InvalidName(number_text(value), 0, f"{key} is {kind} {bounds}")
        return self.kind(value)


_NEEDED_RANK = Parameter(int, 1, 2**31 - 1, required=True)
_RANK = Parameter(int, 1, 2**31 - 1, required=False)
_SEED = Parameter(int, 0, 2**31 - 1, required=False)
_DENSITY = Parameter(float, 0.001, 1, required=True)

METHODS: Mapping[str, Mapping[str, Parameter]] = MappingProxyType(
    {
        "exact": {},
        "lorahub": {},
        "svd": {"rank": _NEEDED_RANK},
        "ties": {"density": _DENSITY, "rank": _RANK},
        "dare_linear": {"density": _DENSITY, "rank": _RANK, "seed": _SEED},
        "dare_ties": {"density": _DENSITY, "rank": _RANK, "seed": _SEED},
    }
)
"""Every way to mix, with the parameters that it takes."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to mix, with its parameters in the alphabetical order of their keys."""

    name: str
    parameters: tuple[tuple[str, float | int], ...] = ()

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise InvalidName(self.name, 0, f"there is no such method, only {', '.join(METHODS)}")
        allowed, given = METHODS[self.name], dict(self.parameters)
        for key, parameter in allowed.items():
            if parameter.required and key not in given:
                raise InvalidName(self.name, len(self.name), f"{self.name} needs ({key}=…)")
        for key, _ in self.parameters:
            if key not in allowed:
                raise InvalidName(key, 0, f"{self.name} takes {', '.join(allowed) or 'no parameters'}")
        if len(given) < len(self.parameters):
            raise InvalidName(self.name, len(self.name), "each parameter is given once")
        read = tuple((key, allowed[key].read(key, given[key])) for key in sorted(given))
        object.__setattr__(self, "parameters", read)

    def __str__(self) -> str:
        inside = ",".join(f"{key}={number_text(value)}" for key, value in self.parameters)
        return f"{self.name}({inside})" if inside else self.name


EXACT = Method("exact")
