"""The adapters that a command line of vLLM's names: the values of its `--lora-modules`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.server.errors import InvalidSettings

_FIELDS = {"name", "path", "base_model_name", "is_3d_lora_weight"}


@dataclass(frozen=True, slots=True)
class LoraModule:
    """One of them.

    Attributes:
        path: a folder, or a Hugging Face id.
        base_model_name: what vLLM shows as its parent, if it is told; not always a place where the base can be found.
    """

    name: str
    path: str
    base_model_name: str | None = None


def entries(words: Sequence[str]) -> Iterator[str]:
    """The entries among arguments, of which `@FILE` stands for those in a file: a JSON list, or one a line.

    Raises:
        OSError: a file cannot be read.
        InvalidSettings: its JSON is broken.
    """
    for word in words:
        if word.startswith("@"):
            yield from _of_file(Path(word[1:]))
        else:
            yield word


def parse_entry(entry: str) -> LoraModule:
    """The adapter that an entry names, as vLLM reads it: `name=path`, or a JSON object.

    Raises:
        InvalidSettings: it is neither.
    """
    if "=" in entry and "," not in entry:
        name, path = entry.split("=", 1)
        return LoraModule(name, path)
    try:
        fields = json.loads(entry)
    except ValueError as error:
        raise InvalidSettings(f"{entry!r} is neither name=path nor a JSON object: {error}") from error
    _check(entry, fields)
    return LoraModule(fields["name"], fields["path"], fields.get("base_model_name"))


def _of_file(path: Path) -> Iterator[str]:
    text = path.read_text()
    if not text.lstrip().startswith("["):
        lines = (line.strip() for line in text.splitlines())
        yield from (line for line in lines if line and not line.startswith("#"))
        return
    try:
        listed = json.loads(text)
    except ValueError as error:
        raise InvalidSettings(f"{path} begins as a JSON list and is none: {error}") from error
    yield from (each if isinstance(each, str) else json.dumps(each) for each in listed)


def _check(entry: str, fields: Any) -> None:
    if not isinstance(fields, Mapping) or not {"name", "path"} <= set(fields) <= _FIELDS:
        raise InvalidSettings(f"{entry!r} is not an object with name, path and, if need be, base_model_name")
    texts = [fields["name"], fields["path"], fields.get("base_model_name") or ""]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidSettings(f"{entry!r}: name, path and base_model_name are texts")
