from tests.faults.__main__ import _options
from tests.faults.faults import FAULTS


def test_each_fault_has_a_name_of_its_own_that_the_command_line_knows() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
    assert _options([word for name in names for word in ("--only", name)]).only == names


def test_the_faults_that_kill_are_the_first_and_the_last() -> None:
    """The supervisor counts restarts within ten minutes."""
    assert [fault.name for fault in FAULTS if fault.kills] == [FAULTS[0].name, FAULTS[-1].name]
