import re

import pytest

from loraloom.compose.report.ink import GOOD, LONGEST_NAME, as_svg, chart, drawing, plain, short


def drawn(name: str) -> str:
    with drawing(name):
        figure, axes = chart(4, 2)
        axes.plot([1, 2], [2, 1], "o", color=GOOD)
        axes.set_title("sql@4 costs $1 and $2")
        return as_svg(figure, name)


def test_a_chart_is_one_element_that_refers_to_nothing_outside() -> None:
    svg = drawn("curve")
    assert svg.startswith("<svg ")
    assert svg.rstrip().endswith("</svg>")
    assert "http" not in svg
    assert "sql@4 costs $1 and $2" in svg


def test_a_chart_is_the_same_every_time_and_shares_no_id_with_another() -> None:
    assert drawn("curve") == drawn("curve")
    one, other = (set(re.findall(r'\bid="([^"]*)"', drawn(name))) for name in ("curve", "bars"))
    assert one
    assert not one & other


def test_what_a_chart_refers_to_is_in_it() -> None:
    svg = drawn("curve")
    ids = re.findall(r'\bid="([^"]*)"', svg)
    asked = re.findall(r'href="#([^"]*)"', svg) + re.findall(r"url\(#([^)]*)\)", svg)
    assert asked
    assert set(asked) <= set(ids)
    assert len(ids) == len(set(ids))


def test_colours_are_left_to_the_page() -> None:
    svg = drawn("curve")
    assert "var(--good)" in svg
    assert "var(--ink)" in svg
    assert GOOD not in svg


def test_a_users_own_settings_change_nothing_and_are_kept() -> None:
    import matplotlib

    usual = drawn("curve")
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path"}):
        assert drawn("curve") == usual
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.parametrize("length", [1, LONGEST_NAME, LONGEST_NAME + 1, 140])
def test_a_long_name_keeps_both_ends(length: int) -> None:
    name = "<" + "n" * (length - 2) + ">" if length > 1 else "n"
    assert len(short(name)) == min(length, LONGEST_NAME)
    assert (short(name)[0], short(name)[-1]) == (name[0], name[-1])
    assert (short(name) == name) == (length <= LONGEST_NAME)


def test_signs_that_the_font_lacks_are_replaced() -> None:
    assert plain("sql \N{EM DASH} 日付") == "sql \N{EM DASH} ??"
