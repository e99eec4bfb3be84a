"""What is written down, and what happens when it cannot be."""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from loraloom.server.observe import ledger as module
from loraloom.server.observe.ledger import Ledger, line_of
from loraloom.server.observe.usage import summed
from tests.server.observe.conftest import Ended


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]


def today() -> str:
    return f"{datetime.now(UTC):%Y%m%d}"


def test_a_line(ended: Ended) -> None:
    assert line_of(ended(engine_queued=None, estimated=True)) == {
        "id": "r1", "key": "team-a", "model": "sql@4", "path": "/v1/chat/completions", "prompt": 12, "cached": 8,
        "output": 4, "estimated": True, "began": "2026-05-28T20:26:40.250Z", "seconds": 2.0, "edge": 0.01,
        "engine": None, "status": 200, "ending": "answered",
    }  # fmt: skip


def test_lines_are_in_one_file_of_this_process_and_day(tmp_path: Path, ended: Ended) -> None:
    ledger, before = Ledger(tmp_path / "usage"), today()
    for number in range(3):
        ledger.add(ended(key=f"key-{number}"))
    ledger.write()
    (file,) = (tmp_path / "usage").iterdir()
    assert file.name.startswith("usage-")
    assert file.name.endswith(tuple(f"-{os.getpid()}-{day}-0001.jsonl" for day in (before, today())))
    assert [line["key"] for line in lines(tmp_path / "usage")] == ["key-0", "key-1", "key-2"]
    assert (ledger.written, ledger.dropped, ledger.failing) == (3, 0, False)
    assert ledger.free_bytes is not None
    assert ledger.free_bytes > 0


def test_the_thread_writes_by_itself(tmp_path: Path, ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, wrote = Ledger(tmp_path, pace=0.001), threading.Event()
    write = ledger.write
    monkeypatch.setattr(ledger, "write", lambda: (write(), ledger.written and wrote.set()))
    ledger.start()
    ledger.add(ended())
    assert wrote.wait(30)
    assert len(lines(tmp_path)) == 1
    ledger.close()


def test_closing_writes_what_waits_once(tmp_path: Path, ended: Ended) -> None:
    ledger = Ledger(tmp_path, pace=3600)
    ledger.start()
    ledger.add(ended())
    ledger.close()
    ledger.close()
    assert len(lines(tmp_path)) == 1


def test_a_process_that_ends_by_itself_writes_what_waits(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from loraloom.server.observe.account import Account\n"
        "from loraloom.server.observe.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]), pace=3600); ledger.start(); ledger.add(Account('r1'))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert [line["id"] for line in lines(tmp_path)] == ["r1"]


def test_a_process_that_is_killed_has_written_whole_lines_and_what_it_knows_to_be_written(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from loraloom.server.observe.account import Account\n"
        "from loraloom.server.observe.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]), pace=0.001); ledger.start()\n"
        "while True:\n"
        "    ledger.add(Account('r', ended=1.0))\n"
        "    if ledger.written > 500: print(ledger.written, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        written = int(process.stdout.readline())
        process.kill()
    usage = summed(tmp_path, [])
    assert usage.sums[()].requests >= written
    assert usage.torn <= 1  # the kernel may stop in the middle of a large write


def test_closing_does_not_wait_for_a_disk_that_hangs(
    tmp_path: Path, ended: Ended, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ledger, write, hangs, back = (
        Ledger(tmp_path, pace=0.001, patience=0.01),
        os.write,
        threading.Event(),
        threading.Event(),
    )

    def hanging(file: int, text: bytes) -> int:
        hangs.set()
        back.wait()
        return write(file, text)

    monkeypatch.setattr(os, "write", hanging)
    ledger.start()
    for _ in range(3):
        ledger.add(ended())
    assert hangs.wait(30)
    ledger.close()
    assert ledger.dropped == 3
    assert "3 lines" in caplog.text
    back.set()


def test_closing_says_what_could_not_be_written(tmp_path: Path, ended: Ended, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    ledger = Ledger(tmp_path / "file")
    for _ in range(2):
        ledger.add(ended())
    ledger.close()
    assert ledger.dropped == 2
    assert "2 lines" in caplog.records[-1].getMessage()


def test_what_is_no_fault_of_the_disk_does_not_end_the_writing(
    tmp_path: Path, ended: Ended, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ledger, usage, tries, failed = Ledger(tmp_path, pace=0.001), shutil.disk_usage, [0], threading.Event()

    def broken(folder: Path) -> Any:
        tries[0] += 1
        if tries[0] > 2:
            failed.set()
        raise ValueError("a size that is none")

    monkeypatch.setattr(shutil, "disk_usage", broken)
    ledger.start()
    assert failed.wait(30)
    assert ledger.failing
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "a size that is none" in caplog.text
    monkeypatch.setattr(shutil, "disk_usage", usage)
    ledger.add(ended())
    ledger.close()
    assert (len(lines(tmp_path)), ledger.failing) == (1, False)


def test_a_line_that_cannot_be_told_is_dropped_and_those_after_it_are_not(tmp_path: Path, ended: Ended) -> None:
    ledger = Ledger(tmp_path)
    ledger.add(ended(at="never"))
    ledger.add(ended(key="after"))
    ledger.write()
    assert (ledger.failing, ledger.dropped) == (True, 1)
    ledger.write()
    assert [line["key"] for line in lines(tmp_path)] == ["after"]
    assert (ledger.failing, ledger.dropped) == (False, 1)


def test_files_are_followed_by_others_by_size_and_by_day(
    tmp_path: Path, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Day(datetime):
        today = 1

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 1, cls.today, tzinfo=tz)

    monkeypatch.setattr(module, "datetime", Day)
    ledger = Ledger(tmp_path, file_bytes=1)
    for day in (1, 1, 2):
        Day.today = day
        ledger.add(ended())
        ledger.write()
    names = sorted(file.name.split("-", 3)[-1] for file in tmp_path.iterdir())
    assert [name.removeprefix(f"{os.getpid()}-") for name in names] == [
        "20260101-0001.jsonl",
        "20260101-0002.jsonl",
        "20260102-0001.jsonl",
    ]


def test_a_file_that_was_there_is_never_written_to(tmp_path: Path, ended: Ended) -> None:
    """Processes in containers have the same number again and again."""
    for _ in range(2):
        ledger = Ledger(tmp_path)
        ledger.add(ended())
        ledger.write()
        ledger.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_when_the_folder_is_gone_and_comes_back_nothing_is_lost(
    tmp_path: Path, ended: Ended, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "usage"
    ledger = Ledger(folder)
    ledger.add(ended(key="before"))
    ledger.write()
    shutil.rmtree(folder)
    folder.write_text("a file in its place")
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            ledger.add(ended(key=f"during-{number}"))
            ledger.write()
        assert (ledger.failing, ledger.written, ledger.dropped) == (True, 1, 0)
        folder.unlink()
        ledger.add(ended(key="after"))
        ledger.write()
    assert [line["key"] for line in lines(folder)] == ["during-0", "during-1", "during-2", "after"]
    assert (ledger.failing, ledger.written) == (False, 5)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_a_full_disk_leaves_a_part_of_a_line_and_the_whole_one_in_the_next_file(
    tmp_path: Path, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, write, room = Ledger(tmp_path), os.write, [400]

    def limited(file: int, text: bytes) -> int:
        done = write(file, text[: room[0]])
        room[0] -= done
        if done == 0:
            raise OSError(28, "No space left on device")
        return done

    monkeypatch.setattr(os, "write", limited)
    for number in range(3):
        ledger.add(ended(key=f"key-{number}"))
    ledger.write()
    assert (ledger.failing, ledger.written) == (True, 1)
    monkeypatch.setattr(os, "write", write)
    ledger.write()
    first, second = sorted(tmp_path.iterdir())
    assert first.stat().st_size == 400
    assert [json.loads(line)["key"] for line in second.read_text().splitlines()] == ["key-1", "key-2"]
    assert (ledger.failing, ledger.written) == (False, 3)


def test_while_the_disk_is_full_no_file_is_left_and_the_attempts_become_rare(
    tmp_path: Path, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, text: bytes) -> int:
        raise OSError(28, "No space left on device")

    ledger, write, opened, open_ = Ledger(tmp_path, pace=1), os.write, [], os.open
    monkeypatch.setattr(os, "open", lambda path, *more: opened.append(path) or open_(path, *more))
    monkeypatch.setattr(os, "write", full)
    ledger.add(ended())
    pauses = []
    for _ in range(6):
        ledger.write()
        pauses.append(ledger.pause)
    assert list(tmp_path.iterdir()) == []
    assert pauses == [2, 4, 8, 10, 10, 10]
    monkeypatch.setattr(os, "write", write)
    ledger.write()
    assert (ledger.pause, len(lines(tmp_path))) == (1, 1)
    assert len(opened) == 7
    assert {path.name.rpartition("-")[2] for path in opened} == {"0001.jsonl"}


def test_numbers_that_were_taken_are_not_tried_again(
    tmp_path: Path, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, opened, open_ = Ledger(tmp_path, file_bytes=1), [], os.open
    monkeypatch.setattr(os, "open", lambda path, *more: opened.append(path) or open_(path, *more))
    for _ in range(5):
        ledger.add(ended())
        ledger.write()
    assert len(opened) == len(lines(tmp_path)) == 5


def test_beyond_the_bound_lines_are_dropped_and_counted(tmp_path: Path, ended: Ended) -> None:
    (tmp_path / "file").touch()
    ledger = Ledger(tmp_path / "file", most=5)
    for _ in range(4):
        ledger.add(ended())
    ledger.write()
    for _ in range(4):
        ledger.add(ended())
    assert (ledger.dropped, ledger.written) == (3, 0)


def test_a_ledger_that_has_nothing_to_write_yet_makes_its_folder(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "new" / "usage")
    ledger.write()
    assert (tmp_path / "new" / "usage").is_dir()
    assert not ledger.failing
    assert ledger.free_bytes
