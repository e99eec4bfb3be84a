"""Tables on the screen."""

import pytest

from loraloom.server.cli.tables import table


def test_columns_are_as_wide_as_their_widest_cell(capsys: pytest.CaptureFixture[str]) -> None:
    table(("NAME", "N"), [("a", "1"), ("longer", "")])
    assert capsys.readouterr().out == "NAME    N\na       1\nlonger\n"


def test_a_table_without_rows_has_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    table(("NAME", "N"), [])
    assert capsys.readouterr().out == "NAME  N\n"
