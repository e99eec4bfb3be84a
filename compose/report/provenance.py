"""Where a composition comes from, as rows of text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def rows(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Everything but lists of records, one fact a row; what lies deeper is named by its path."""
    return [(" ".join(path).replace("_", " "), text) for path, text in _facts(provenance, ())]


def records(provenance: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The lists of records, such as the pool, by name."""
    return {name: list(value) for name, value in provenance.items() if _is_records(value)}


def columns(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields of its records, in the order in which they are met."""
    return list(dict.fromkeys(name for record in table for name in record))


def text_of(value: object) -> str:
    """A value as people write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(text_of, value))
    return str(value)


def _facts(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _facts(value, (*path, name))
        elif not _is_records(value):
            yield (*path, name), text_of(value)


def _is_records(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(each, Mapping) for each in value)
