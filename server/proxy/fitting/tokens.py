"""Whether two models mean the same by every token id, from their tokenizers' files alone."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.adapters.errors import InvalidBase
from loraloom.adapters.tokenizer import read_token_map

TOKEN_FILES = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json")
"""What is read besides the tokenizer's own files, where it is there."""

SPECIAL = ("bos", "eos", "pad", "unk")
_SHOWN = 3


@dataclass(frozen=True)
class Tokens:
    """A model's tokenizer.

    Attributes:
        digest: identifies the map from tokens to ids with the merges, or None without a tokenizer.
        ids: the id of each token, or None where only sentencepiece could tell.
        special: the tokens of `SPECIAL`, as far as they are told.
        chat_template: Jinja, or None without one; of several, the one called default.
        templates: the names of chat templates, where there are several and none is called default.
    """

    digest: str | None
    ids: Mapping[str, int] | None
    special: Mapping[str, str]
    chat_template: str | None
    templates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """A token with another id in the small model than in the large one, None where it has none."""

    token: str
    large: int | None
    small: int | None


def read_tokens(folder: Path) -> Tokens:
    """The tokenizer in a model's directory.

    Raises:
        InvalidBase: one of its files is damaged.
    """
    tokens = read_token_map(folder)
    config = _object(folder / "tokenizer_config.json")
    ids = None if tokens is None or tokens.ids is None else {**_added(folder, config), **tokens.ids}
    if ids and not all(type(number) is int for number in ids.values()):
        raise InvalidBase(f"{folder / 'tokenizer.json'} is damaged: download the model again")
    template = _chat_template(folder, config)
    named = template if isinstance(template, dict) else {"default": template}
    return Tokens(
        digest=None if tokens is None else tokens.digest,
        ids=ids,
        special=_special({**_object(folder / "special_tokens_map.json"), **config}),
        chat_template=named.get("default"),
        templates=() if "default" in named else tuple(named),
    )


def differences(large: Mapping[str, int], small: Mapping[str, int]) -> list[Difference]:
    """The tokens whose ids differ, in the order of their ids."""
    found = [
        Difference(token, large.get(token), small.get(token))
        for token in large.keys() | small.keys()
        if large.get(token) != small.get(token)
    ]
    return sorted(found, key=lambda each: (_first(each), each.token))


def mismatch(large: Tokens, small: Tokens) -> str | None:
    """Why the ids of two tokenizers do not mean the same, or None when they do."""
    if large.digest is None or small.digest is None:
        which = "large" if large.digest is None else "small"
        return f"the {which} model has no tokenizer.json or tokenizer.model: put its tokenizer into its folder"
    if large.ids is None or small.ids is None:
        return None if large.digest == small.digest else _UNCOMPARABLE
    if large.ids == small.ids:
        return None
    found = differences(large.ids, small.ids)
    return (
        f"the tokenizers differ in {len(found)} token{'' if len(found) == 1 else 's'} ({_some(found)}): take a small "
        "model that was trained with the large one's tokenizer"
    )


_UNCOMPARABLE = (
    "the tokenizers differ, or cannot be compared, as not both have a tokenizer.json: write them with transformers' "
    "AutoTokenizer.from_pretrained(…).save_pretrained(…)"
)


def special_differences(large: Tokens, small: Tokens) -> Iterator[str]:
    """The special tokens that are told of both and differ, as "eos: '</s>', '<|im_end|>' in the small model"."""
    for name in SPECIAL:
        ours, theirs = large.special.get(name), small.special.get(name)
        if ours != theirs and ours is not None and theirs is not None:
            yield f"{name}: {ours!r}, {theirs!r} in the small model"


def _first(difference: Difference) -> int:
    return min(number for number in (difference.large, difference.small) if number is not None)


def _some(found: list[Difference]) -> str:
    shown = [f"{each.token!r}: {_told(each.large)}, {_told(each.small)} in the small model" for each in found[:_SHOWN]]
    return "; ".join(shown) + ("; …" if len(found) > _SHOWN else "")


def _told(number: int | None) -> str:
    return "no id" if number is None else str(number)


def _object(path: Path) -> dict[str, Any]:
    """The object of JSON in a file, empty where there is no file."""
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidBase(f"{path} is damaged: download the model again") from error


def _added(folder: Path, config: Mapping[str, Any]) -> dict[str, int]:
    """Tokens that transformers adds to those of `tokenizer.json`."""
    added = config.get("added_tokens_decoder") or {}
    try:
        return {str(entry["content"]): int(number) for number, entry in added.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidBase(f"{folder / 'tokenizer_config.json'} is damaged: download the model again") from error


def _special(config: Mapping[str, Any]) -> dict[str, str]:
    """Each is written as a text, or as an object with the text in it."""
    given = {name: config.get(f"{name}_token") for name in SPECIAL}
    texts = {name: token.get("content") if isinstance(token, dict) else token for name, token in given.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | dict[str, str] | None:
    """The one, or all by their names where there are several."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8", errors="replace")
    found = _object(folder / "chat_template.json").get("chat_template") or config.get("chat_template")
    return found if found is None or isinstance(found, str) else _named(found, folder)


def _named(templates: Any, folder: Path) -> dict[str, str]:
    """Several templates are written as objects with a name and a template, or as one object."""
    try:
        found = {each["name"]: each["template"] for each in templates} if isinstance(templates, list) else templates
        return {str(name): str(template) for name, template in found.items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise InvalidBase(f"{folder / 'tokenizer_config.json'} is damaged: download the model again") from error
