"""Which names a pattern matches."""

import pytest

from loraloom.server.access.patterns import EVERYTHING, Patterns
from loraloom.server.errors import InvalidSettings


@pytest.mark.parametrize(
    ("texts", "matching", "others"),
    [
        (
            "team-a/*",
            ["team-a/sql", "team-a/s.q-l_2"],
            ["team-a", "team-b/sql", "Team-A/sql", "xteam-a/sql"],
        ),
        ("sql", ["sql"], ["sql2", "a/sql", "sql/a", "SQL"]),
        ("team-*", ["team-a", "team-"], ["team-a/sql"]),
        ("team-*/sql", ["team-a/sql"], ["team-a/sqlite", "team-a/x/sql"]),
        ("*/public", ["a/public"], ["public"]),
        ("*", ["sql", "team-a/sql"], []),
        ("a/*, b", ["a/x", "b"], ["b/x"]),
        ("a.b", ["a.b"], ["axb"]),
        ("", [], ["sql", "", "*"]),
    ],
)
def test_a_star_stays_within_a_part_but_alone_it_is_every_name(
    texts: str, matching: list[str], others: list[str]
) -> None:
    patterns = Patterns.parse(texts)
    assert [name for name in matching + others if patterns.match(name)] == matching


@pytest.mark.parametrize("text", ["a/b/c", "**/", "a b", "a/", "/a", "[a]", "a?", "x" * 65, "a\n"])
def test_what_is_no_pattern_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(InvalidSettings, match="team-a/sql"):
        Patterns((text,))


def test_patterns_print_as_they_are_written() -> None:
    assert str(Patterns.parse(" a/* ,b")) == "a/*,b"
    assert Patterns.parse("*") == EVERYTHING
