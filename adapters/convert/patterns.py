"""Regular expressions in an adapter's configuration, replaced by the names that they match.

Whoever made the adapter wrote them, one of them can take for ever, and peft sets no limit.
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from loraloom.adapters.errors import InvalidAdapter
from loraloom.adapters.manifest import MAX_NAME
from loraloom.adapters.patterns import Patterns, compiled, matches
from loraloom.adapters.peft_config import PATTERN_SECONDS

_LINEAR = "all-linear"
_MATCHED_WHOLE = ("target_modules", "exclude_modules", "feedforward_modules")
_LOOKED_UP = "_pattern"
"""How the names of those fields end whose keys are patterns: "rank_pattern", "n_frequency_pattern" and others."""
_RANKS_BY_NAME = "ADALORA"
"""The kind whose `rank_pattern` says by the names of tensors which ranks are left."""


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
    for key in fields:
        if key == "layers_pattern" or (key == "rank_pattern" and fields.get("peft_type") == _RANKS_BY_NAME):
            _check_plain(key, fields[key])
        elif key.endswith(_LOOKED_UP) and isinstance(fields[key], dict):
            plain[key] = _by_path(fields[key], paths, deadline)
    return plain


def _by_path(patterns: Mapping[str, Any], paths: Sequence[str], deadline: float) -> dict[str, Any]:
    """The value of each path that a pattern matches, under a pattern that matches nothing else."""
    values = Patterns[Any](patterns, deadline)
    found = {path: values.get(path, None) for path in paths}
    return {_only(path): value for path, value in found.items() if value is not None}


def _only(path: str) -> str:
    """A pattern of this path alone, with and without the dot that FourierFT and C³A require before their patterns."""
    first, dot, rest = path.partition(".")
    return rf"(?<=^{re.escape(first)}\.){re.escape(rest)}" if dot else re.escape(path)


def _check_plain(key: str, given: object) -> None:
    """peft puts these into an expression of its own; they are names, such as "layers"."""
    if given is None:
        return
    for name in given if isinstance(given, list | dict) else [given]:
        if not isinstance(name, str) or len(name) > MAX_NAME or not re.fullmatch(r"[\w.-]*", name):
            raise InvalidAdapter(f"adapter_config.json: {key} holds names, and not {str(name)[:100]!r}")
