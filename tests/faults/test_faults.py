from pathlib import Path

import pytest

from tests.faults.__main__ import DOCS, PART, _earlier, _options
from tests.faults.campaign import Campaign
from tests.faults.faults import FAULTS
from tests.faults.report import record_of
from tests.faults.round import Result, Round


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


def test_a_campaign_that_was_broken_off_goes_on_with_the_same_versions_only(tmp_path: Path) -> None:
    now, record = {"vllm": "1"}, tmp_path / "reliability.json"
    results = [Result("kill", "it dies", "by hand", [Round(1.0, 2.0, {}, {}, {}, 0, 0)])]
    record.write_text(record_of(results, {"versions": now, "asked": 7, "acknowledged": 3}))
    assert _earlier(record, now) == Campaign(results, 3, 7)
    with pytest.raises(SystemExit, match="without --add"):
        _earlier(record, {"vllm": "2"})
