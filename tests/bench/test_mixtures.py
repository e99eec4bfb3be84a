"""The arithmetic of the mixtures' benchmark; its servers are real and start only in the benchmark."""

from pathlib import Path

from tests.bench.mixtures import CACHE, KINDS, NEW, PLAIN, SAME, SEEN, Many, Size, _new_mixtures, _outcome, _stored

SIZE = Size(rounds=3, prompts=10, many=4)


def outcome(new: float, seen: float, different: int, most: int) -> tuple[bool, ...]:
    plain = [0.1, 0.2, 0.3]
    first = {PLAIN: plain, SAME: plain, SEEN: [each + seen for each in plain], NEW: [each + new for each in plain]}
    tasks = {(1.0, 0.0): (90, 10), (0.5, 0.5): (80, 70)}
    made = _outcome(SIZE, first, tasks, Many(different, most, {"server": (100.0, 103.0)}))
    assert "0.5 name + 0.5 units" in str(made.table)
    assert any("server +3 MiB" in note for note in made.notes)
    return tuple(goal.met for goal in made.goals)


def test_the_goals_follow_the_figures() -> None:
    assert outcome(new=0.14, seen=0.0, different=0, most=CACHE) == (True, True, True, True, True)
    assert outcome(new=0.16, seen=0.01, different=1, most=CACHE + 1) == (False, False, False, False, False)


def test_every_new_mixture_is_another() -> None:
    source = _new_mixtures()
    assert len({next(source) for _ in range(100)}) == 100
    assert set(KINDS) == {PLAIN, SAME, SEEN, NEW}


def test_what_is_stored_is_counted(tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / "process" / str(number)
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"x" * 10)
    assert _stored(tmp_path) == 30
    assert _stored(tmp_path / "missing") == 0
