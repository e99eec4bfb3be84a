"""Which models are composed, as it travels inside the large model's configuration to every process of the engine."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

ARCHITECTURE = "LoraLoomProxyForCausalLM"
"""The name under which vLLM knows the composite model."""
FIELD = "loraloom_proxy"
"""The field of the large model's configuration that holds the pair: vLLM's compile cache covers it there."""


@dataclass(frozen=True)
class Pair:
    """A large model and what steers it.

    Attributes:
        large: the architectures of the large model, which the composite one stands in front of.
        small: directory or Hugging Face id of the small model, the antiexpert.
        expert: the same of a tuned small model; None where the expert is the small model with the request's adapter.
        alpha: the strength of requests that choose none.
    """

    large: tuple[str, ...]
    small: str
    expert: str | None = None
    alpha: float = 1.0

    @property
    def unadapted_alpha(self) -> float:
        """The strength without any adapter: with an expert of its own the default, and else there is nothing to add."""
        return 0.0 if self.expert is None else self.alpha

    def overrides(self) -> str:
        """The value of vLLM's `--hf-overrides` that replaces the large model by the composite one."""
        return json.dumps({"architectures": [ARCHITECTURE], FIELD: asdict(self)})

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Pair":
        """The pair in a configuration's field `FIELD`."""
        return cls(**{**fields, "large": tuple(fields["large"])})
