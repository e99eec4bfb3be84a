"""What the documents name is real: tests, files, links, paths with their roles, status codes, errors and settings."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from loraloom.server.access.access import Role
from loraloom.server.admission.estimate import CHARACTERS_PER_TOKEN
from loraloom.server.gate import bounds
from loraloom.server.gate.paths import OPEN, OpenPaths, Route
from loraloom.server.gate.privileges import DROPPED_FIELDS, DROPPED_HEADERS
from loraloom.server.gate.statuses import STATUSES, UNEXPECTED
from loraloom.server.settings import Settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
CODES = {status.code: status.http for status in [*STATUSES.values(), UNEXPECTED]}
ROLES = {role.word for role in Role}


def text_of(name: str) -> str:
    return (DOCS / name).read_text()


def rows(text: str, head: str) -> Iterator[list[str]]:
    """The cells of each row of the table that has this head."""
    _, found, rest = text.partition(f"{head}\n")
    assert found, f"no table | {head}"
    for line in rest.splitlines()[1:]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def quoted(text: str) -> list[str]:
    """What stands between backticks within lines."""
    return re.findall(r"`([^`\n]+)`", text)


@cache
def functions_of(path: Path) -> frozenset[str]:
    functions = (
        node for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return frozenset(function.name for function in functions)


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)


DEFENCES = list(rows(text_of("security.md"), "| defence | where | the test |"))


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda cells: cells[0])
def test_each_defence_has_its_place_and_its_tests(defence: list[str]) -> None:
    _, where, tests = defence
    assert quoted(where)
    assert all((ROOT / path).is_file() for path in quoted(where))
    assert quoted(tests)
    for path, _, name in (test.partition("::") for test in quoted(tests)):
        assert name in functions_of(ROOT / path), f"{path}::{name}"


def test_every_path_that_security_names_is_open() -> None:
    text = text_of("security.md")
    named = {
        word.rpartition(" ")[2] for word in quoted(text) if re.fullmatch(r"((GET|POST|PUT|DELETE) )?/[\w/{}]+", word)
    }
    assert named >= {"/health", "/ready", "/metrics"}
    for path in named:
        assert OpenPaths().find("OPTIONS", path)


def test_every_role_that_is_named_is_one() -> None:
    for page in ("security.md", "serving.md", "api.md", "keys.md", "observability.md"):
        for named in re.findall(r"roles?:? ((?:`\w+`(?:, | or | and )?)+)", text_of(page)):
            assert set(quoted(named)) <= ROLES, f"{page}: {named}"


def test_every_status_that_security_names_is_one() -> None:
    assert {int(number) for number in re.findall(r"\b[45]\d\d\b", text_of("security.md"))} <= set(CODES.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_codes_are_named_with_their_status(page: Path) -> None:
    for number, code in re.findall(r"\b([45]\d\d) `([a-z_]+)`", page.read_text()):
        assert CODES[code] == int(number), f"{number} {code}"


def test_the_api_has_every_code_with_its_status() -> None:
    told: dict[str, set[int]] = {}
    for numbers, codes, _ in rows(text_of("api.md"), "| status | code | when |"):
        for code in quoted(codes):
            told.setdefault(code, set()).update(int(number) for number in numbers.split(", "))
    assert told.keys() == CODES.keys()
    assert all(CODES[code] in numbers for code, numbers in told.items())


@pytest.mark.parametrize("route", OPEN, ids=lambda route: route.pattern)
def test_the_api_says_what_each_path_takes(route: Route) -> None:
    table = {
        quoted(cells[0])[0]: cells[1:]
        for cells in rows(text_of("api.md"), "| path | to read (GET) | to do anything else |")
    }
    reading = _told(route.reading) if "GET" in route.methods else "-"
    writing = _told(route.writing) if route.methods - {"GET", "HEAD"} else "-"
    assert [cell.partition(";")[0] for cell in table[route.pattern]] == [reading, writing]
    assert len(table) == len(OPEN) + 1  # and what a setting opens


def _told(role: Role | None) -> str:
    return "everybody" if role is None else role.word


def test_the_api_says_what_is_dropped() -> None:
    dropped = text_of("api.md").partition("is dropped:")[2].partition("Refused are")[0]
    ours = {"adapter", "adapter_id", "merged_adapters", "adapter_source"}
    keys = {"authorization", "x-api-key"}
    assert set(quoted(dropped)) == DROPPED_FIELDS - ours | {header.decode() for header in DROPPED_HEADERS} - keys


def test_the_api_says_what_is_bounded() -> None:
    told = {name: bound for asked, bound in rows(text_of("api.md"), "| asked for | up to |") for name in quoted(asked)}
    for field, most in bounds.LENGTHS.items():
        assert told[field].startswith(str(most))
    assert f"{bounds.WORDS} bytes" in told["bad_words"]
    assert {told[field].partition(" ")[0] for field in bounds.FORMS} == {str(bounds.FORM // 2**10)}
    assert told["tools"].startswith(f"{bounds.TOOLS // 2**10} KiB")
    assert told["repetition_detection"].endswith(f" {bounds.REPETITION}")
    assert told["max_tokens"].startswith(str(bounds.BEAM))
    assert told["prompt_logprobs"].startswith(f"{bounds.PROMPT_LOGPROBS:,}")
    assert bounds.TRUNCATED == CHARACTERS_PER_TOKEN == 4
    assert told["truncate_prompt_tokens"] == "four times the context, at four characters a token"


SETTINGS = {
    name: cells for cells in rows(text_of("serving.md"), "| setting | default | meaning |") for name in quoted(cells[0])
}


def test_every_setting_is_told() -> None:
    assert set(SETTINGS) == set(Settings.model_fields) - {"model", "served_name"}  # those are in the first line


@pytest.mark.parametrize("name", SETTINGS)
def test_the_defaults_are_those_that_are_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    names, told, _ = SETTINGS[name]
    shown = told.split(", ")[quoted(names).index(name)].strip("`")
    default = getattr(Settings(), name)
    expected = {None: "none", (): "none"}.get(default, str(default).lower() if isinstance(default, bool) else default)
    sizes = {"GiB": 2**30, "MiB": 2**20}
    number, _, unit = shown.partition(" ")
    if unit in sizes:
        assert int(number) * sizes[unit] == expected
    elif isinstance(expected, int | float):
        assert float(shown) == expected
    else:
        assert Path(shown).expanduser() == Path(str(expected)) if shown.startswith("~") else shown == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        led = page.parent / path if path else page
        assert led.exists(), target
        assert not anchor or anchor in anchors(led), target
