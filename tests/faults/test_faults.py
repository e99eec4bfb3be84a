from pathlib import Path

import pytest

from tests.faults.__main__ import DOCS, PART, _options
from tests.faults.faults import FAULTS


def test_each_fault_has_a_name_of_its_own_that_the_command_line_knows() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
    assert _options([word for name in names for word in ("--only", name)]).only == names


def test_the_faults_that_kill_are_the_first_and_the_last() -> None:
    """The supervisor counts restarts within ten minutes."""
    assert [fault.name for fault in FAULTS if fault.kills] == [FAULTS[0].name, FAULTS[-1].name]


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        ([], DOCS),
        (["--note", "It was cold."], DOCS),
        (["--times", "1"], PART),
        (["--only", FAULTS[0].name], PART),
        (["--only", FAULTS[0].name, "--output", "here"], Path("here")),
    ],
)
def test_only_all_of_it_is_what_the_documentation_shows(arguments: list[str], folder: Path) -> None:
    assert _options(arguments).output == folder
