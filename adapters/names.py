"""The grammar of what a request can ask for: one line of text, parsed once to a frozen value.

    selection  = ( adapter | mixture ) [ "~" number ]          "~" is the strength of proxy-tuning
    adapter    = name [ "@" version ]                          without a version: the tag "latest"
    name       = part [ "/" part ]                             the second part is not "versions" or "tags"
    version    = integer | tag | "sha256:" hex{8,64}
    part, tag  = [A-Za-z0-9][A-Za-z0-9._-]{0,63}               a tag is not made of digits only
    mixture    = [ method ":" ] term { "+" term }              spaces around "+" are ignored
    term       = [ number "*" ] adapter                        without a weight: 1
    method     = word [ "(" key "=" number { "," key "=" number } ")" ]
    number     = decimal, with "-" in front if negative, and an exponent without "+" if any

`str()` of a value is its canonical text, and parsing that text gives the value back. A value that breaks a rule cannot
be built: the constructors raise `InvalidName` too.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from loraloom.adapters.errors import InvalidName
from loraloom.adapters.methods import EXACT, Method
from loraloom.adapters.scanner import MAX_TEXT, Scanner, number_text


@dataclass(frozen=True, slots=True)
class Tag:
    """A movable name of a version, such as "stable"."""

    name: str

    def __post_init__(self) -> None:
        check_tag(self.name)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Digest:
    """The first hex digits, at least eight, of the SHA-256 of an adapter's normal form."""

    prefix: str

    def __post_init__(self) -> None:
        Scanner(self.prefix).whole(Scanner.digest_prefix)

    def __str__(self) -> str:
        return f"sha256:{self.prefix}"


def check_name(text: str) -> str:
    """`text` itself when it is an adapter's name; raises `InvalidName` otherwise."""
    return Scanner(text).whole(Scanner.name)


def check_tag(text: str) -> str:
    """`text` itself when it can be a tag; raises `InvalidName` otherwise."""
    return Scanner(text).whole(Scanner.tag)


Version: TypeAlias = int | Tag | Digest
LATEST = Tag("latest")

SHORT = 256
"""Characters of a text that is remembered once it has been parsed: most requests ask for what others have asked for."""
MAX_TERMS = MAX_TEXT // 2
"""Terms in the longest mixture: as many as fit into a text."""
_SHOWN = 200
"""Characters of a JSON value in an error."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """One stored adapter: its name, and which of its versions."""

    name: str
    version: Version = LATEST

    def __post_init__(self) -> None:
        check_name(self.name)
        if isinstance(self.version, int) and parse_version(str(self.version)) != self.version:
            raise InvalidName(str(self.version), 0, "a version is a number, a tag or a digest")

    def __str__(self) -> str:
        return self.name if self.version == LATEST else f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Term:
    """One adapter of a mixture, and its weight, which may be negative."""

    weight: float
    adapter: Adapter

    def __post_init__(self) -> None:
        _check_finite("a weight", self.weight)

    def __str__(self) -> str:
        return f"{number_text(self.weight)}*{self.adapter}"


@dataclass(frozen=True, slots=True)
class Mixture:
    """Several adapters mixed to one."""

    terms: tuple[Term, ...]
    method: Method = EXACT

    def __post_init__(self) -> None:
        if not self.terms:
            raise InvalidName("", 0, "a mixture has at least one adapter")

    def __str__(self) -> str:
        prefix = "" if self.method == EXACT else f"{self.method}:"
        return prefix + "+".join(map(str, self.terms))


@dataclass(frozen=True, slots=True)
class Selection:
    """What a request asks for: an adapter or a mixture, and the strength `alpha` of proxy-tuning if it says one."""

    target: Adapter | Mixture
    alpha: float | None = None

    def __post_init__(self) -> None:
        if self.alpha is not None:
            _check_finite("alpha", self.alpha)
        Scanner(str(self))  # raises when the text is too long to be parsed again

    @property
    def mixture(self) -> Mixture:
        """The target as a mixture; an adapter is one of itself alone."""
        return self.target if isinstance(self.target, Mixture) else Mixture((Term(1.0, self.target),))

    def __str__(self) -> str:
        return str(self.target) if self.alpha is None else f"{self.target}~{number_text(self.alpha)}"


def parse(text: str) -> Selection:
    """The selection that `text` writes, such as `svd(rank=16):0.7*sql@4+-0.3*date~0.8`.

    Raises:
        InvalidName: with the position of the first character that does not fit.
    """
    return _parse_short(text) if len(text) <= SHORT else _parse(text)


def _parse(text: str) -> Selection:
    return Scanner(text).whole(_selection)


_parse_short = lru_cache(maxsize=4096)(_parse)


def parse_adapter(text: str) -> Adapter:
    """The adapter that `text` writes, such as `org/sql@stable`; raises `InvalidName` for anything else."""
    return Scanner(text).whole(_adapter)


def parse_version(text: str) -> Version:
    """The version that `text` writes: `4`, `stable` or `sha256:0123abcd`; raises `InvalidName`."""
    return Scanner(text).whole(_version)


def parse_method(text: str) -> Method:
    """The method that `text` writes, such as `svd(rank=16)`; raises `InvalidName`."""
    return Scanner(text).whole(_method)


def selection_from_json(value: object) -> Selection:
    """The selection that the `adapter` field of a request's body writes.

    Args:
        value: `{"name": "sql", "version": "stable"}` or `{"mix": {"sql@4": 0.6, "date": 0.4}, "method": "exact"}`,
            either with `"alpha": 0.8`; or the selection as text.

    Raises:
        InvalidName: with the position in the JSON text, or in the string inside it that does not fit.
    """
    if isinstance(value, str):
        return parse(value)
    if not isinstance(value, Mapping) or ("name" in value) == ("mix" in value):
        raise _json_fault(value, 'an adapter is a text, {"name": …} or {"mix": {…}}')
    allowed = ("name", "version", "alpha") if "name" in value else ("mix", "method", "alpha")
    if unknown := [key for key in value if key not in allowed]:
        raise _json_fault(value, f"the keys here are {', '.join(allowed)}, and not {str(unknown[0])[:50]!r}")
    alpha = None if value.get("alpha") is None else _json_number("alpha", value["alpha"])
    return Selection(_json_adapter(value) if "name" in value else _json_mixture(value), alpha)


def _json_adapter(value: Mapping[str, object]) -> Adapter:
    name, version = value["name"], value.get("version")
    if not isinstance(name, str) or isinstance(version, bool) or not isinstance(version, str | int | None):
        raise _json_fault(value, '"name" is a text, and "version" a text or an integer')
    return Adapter(name, LATEST if version is None else parse_version(str(version)))


def _json_mixture(value: Mapping[str, object]) -> Mixture:
    mix, method = value["mix"], value.get("method")
    if not isinstance(mix, Mapping) or not isinstance(method, str | None):
        raise _json_fault(value, '"mix" is an object of adapter: weight, and "method" a text')
    if len(mix) > MAX_TERMS:
        raise _json_fault({}, f"a mixture has at most {MAX_TERMS} terms, and not {len(mix)}")
    terms = (Term(_json_number("a weight", weight), parse_adapter(key)) for key, weight in mix.items())
    return Mixture(tuple(terms), EXACT if method is None else parse_method(method))


def _json_number(what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _json_fault(value, f"{what} is a number")
    try:
        return float(value)
    except OverflowError:
        raise _json_fault(value, f"{what} is a finite number") from None


def _json_fault(value: object, reason: str) -> InvalidName:
    """The error, with as much of the value as a message shows: there may be megabytes of it."""
    text = ""
    for part in json.JSONEncoder(default=repr).iterencode(value):
        text += part[:_SHOWN]
        if len(text) >= _SHOWN:
            break
    return InvalidName(text, 0, reason)


def _selection(scanner: Scanner) -> Selection:
    start = scanner.position
    method = _method_prefix(scanner)
    terms = [_term(scanner)]
    while scanner.accept_plus():
        terms.append(_term(scanner))
    alpha = scanner.number() if scanner.accept("~") else None
    weight, adapter = terms[0]
    if method is None and len(terms) == 1 and weight is None:
        return Selection(adapter, alpha)
    weighted = tuple(Term(1.0 if weight is None else weight, adapter) for weight, adapter in terms)
    try:
        return Selection(Mixture(weighted, method or EXACT), alpha)
    except InvalidName as error:
        scanner.fail(error.reason, start)


def _term(scanner: Scanner) -> tuple[float | None, Adapter]:
    return scanner.weight(), _adapter(scanner)


def _adapter(scanner: Scanner) -> Adapter:
    name = scanner.name()
    return Adapter(name, _version(scanner)) if scanner.accept("@") else Adapter(name)


def _version(scanner: Scanner) -> Version:
    if scanner.accept("sha256:"):
        return Digest(scanner.digest_prefix())
    number = scanner.version_number()
    return Tag(scanner.tag()) if number is None else number


def _method_prefix(scanner: Scanner) -> Method | None:
    if not scanner.at_method():
        return None
    method = _method(scanner)
    if not scanner.accept(":"):
        scanner.fail("a method is followed by ':' and the adapters to mix")
    return method


def _method(scanner: Scanner) -> Method:
    start, name, parameters = scanner.position, scanner.part("a method"), []
    if scanner.accept("("):
        parameters.append(_parameter(scanner))
        while scanner.accept(","):
            parameters.append(_parameter(scanner))
        if not scanner.accept(")"):
            scanner.fail("a parameter is followed by ',' or ')'")
    try:
        return Method(name, tuple(parameters))
    except InvalidName as error:
        scanner.fail(error.reason, start)


def _parameter(scanner: Scanner) -> tuple[str, float]:
    key = scanner.key()
    if not scanner.accept("="):
        scanner.fail("a parameter is written key=number")
    return key, scanner.number()


def _check_finite(what: str, value: float) -> None:
    if not math.isfinite(value):
        raise InvalidName(str(value), 0, f"{what} is a finite number")
