"""Regular expressions in an adapter's configuration, replaced by the names that they match.

Whoever made the adapter wrote them, one of them can take for ever, and peft sets no limit.
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from loraloom.adapters.errors import InvalidAdapter
from loraloom.adapters.patterns import Patterns, compiled, matches
from loraloom.adapters.peft_config import PATTERN_SECONDS

_LINEAR = "all-linear"
_MATCHED_WHOLE = ("target_modules", "exclude_modules", "feedforward_modules")
_LOOKED_UP = ("rank_pattern", "alpha_pattern")


def spelled_out(fields: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """The same configuration for a base with modules of these paths, with no pattern left in it.

    Args:
        fields: those of `adapter_config.json`.
        paths: of all modules of the base.

    Raises:
        InvalidAdapter: a pattern is no regular expression, or takes too long.
    """
    deadline = time.monotonic() + PATTERN_SECONDS
    plain = dict(fields)
    for key in _MATCHED_WHOLE:
        if isinstance(fields.get(key), str) and fields[key] != _LINEAR:
            pattern = compiled(fields[key])
            plain[key] = [path for path in paths if matches(pattern, path, deadline)]
    for key in _LOOKED_UP:
        if isinstance(fields.get(key), dict) and not any(isinstance(value, list) for value in fields[key].values()):
            plain[key] = _by_path(fields[key], paths, deadline)
    _check_layers_pattern(fields.get("layers_pattern"))
    return plain


def _by_path(patterns: Mapping[str, Any], paths: Sequence[str], deadline: float) -> dict[str, Any]:
    """The value of each path that a pattern matches, under a pattern that matches nothing else."""
    values = Patterns[Any](patterns, deadline)
    found = {path: values.get(path, None) for path in paths}
    return {re.escape(path): value for path, value in found.items() if value is not None}


def _check_layers_pattern(given: object) -> None:
    """peft puts these into an expression of its own; they are names, such as "layers"."""
    for name in given if isinstance(given, list) else [given]:
        if isinstance(name, str) and not re.fullmatch(r"[\w.]*", name):
            raise InvalidAdapter(f"adapter_config.json: layers_pattern is a name, and not {name[:100]!r}")
