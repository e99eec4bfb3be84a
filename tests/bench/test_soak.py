from dataclasses import replace

from tests.bench.processes import Usage
from tests.bench.soak import FULL, Looks, goals
from tests.bench.soak_answers import Verdict
from tests.bench.soak_clients import Journal


def looks(memory: float = 0, sockets: int = 0, roles: tuple[str, ...] = ("server", "worker")) -> Looks:
    """Two processes over twenty minutes; so much more a minute."""
    return [
        (
            float(minute),
            {
                role: Usage(900, 800, 700 + memory * minute, 20 + sockets * minute, 9, 5 + sockets * minute)
                for role in roles
            },
        )
        for minute in range(21)
    ]


def missed(journal: Journal, seen: Looks, damaged: int = 0) -> list[str]:
    return [goal.about for goal in goals(FULL, journal, seen, damaged) if not goal.met]


def test_a_quiet_soak_meets_every_goal() -> None:
    journal = Journal()
    journal.judge(Verdict.RIGHT, "sql")
    journal.judge(Verdict.UNDECIDED, "base")
    assert missed(journal, looks()) == []


def test_every_fault_misses_a_goal() -> None:
    wrong, failed = Journal(), Journal()
    wrong.judge(Verdict.WRONG_ADAPTER, "sql")
    failed.fail("500")
    assert missed(wrong, looks()) == ["wrong answers"]
    assert missed(failed, looks()) == ["requests and changes that failed"]
    assert missed(Journal(), looks(), damaged=1) == ["damaged records and blobs in the store"]
    assert (wrong.faults, failed.faults) == (["of another adapter: sql"], ["500"])


def test_growth_misses_a_goal() -> None:
    assert missed(Journal(), looks(memory=1)) == []
    assert missed(Journal(), looks(memory=2)) == ["MiB that all processes grew by in the second half"]
    late = {role: replace(process, own=800) for role, process in looks()[0][1].items()}
    assert missed(Journal(), [*looks(), (20.5, late)]) == [
        "MiB that their peak in the second half is above the first's"
    ]
    assert missed(Journal(), looks(sockets=1)) == [
        f"{what} that a process grew by in the second half" for what in ("handles", "sockets")
    ]


def test_a_process_that_was_started_anew_misses_a_goal() -> None:
    seen = [*looks(), (21.0, looks(roles=("server",))[0][1])]
    assert missed(Journal(), seen) == ["looks that found other processes than the first"]
