import json
from pathlib import Path

import pytest

from tests.bench.__main__ import main
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.plots import Curve, Panel, Plot
from tests.bench.registry import Benchmark, Registry
from tests.bench.report import gpus


def registry(value: float) -> Registry:
    def run(folder: Path, full: bool) -> Outcome:
        return Outcome(
            runs=3,
            parameters={"unit": "us"},
            results={"median": value},
            samples={"us": [value, value, value]},
            table=Table(("request", "us"), (("base", f"{value:.0f}"),)),
            goals=(Goal("us added", 300, value),),
            plots=(Plot("curve", "What it costs", (Panel("requests", "us", (Curve("base", (1, 2), (1, value)),)),)),),
        )

    made = Registry()
    made.add(Benchmark("edge", "what it costs", run))
    return made


def test_a_run_is_written_with_all_that_one_needs_to_judge_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "new")], registry(42.0)) == 0
    record = json.loads((tmp_path / "new/edge.json").read_text())
    assert record["samples"] == {"us": [42.0, 42.0, 42.0]}
    assert record["runs"] == 3
    assert record["goals"] == [{"about": "us added", "limit": 300, "value": 42.0, "met": True}]
    assert record["machine"]["cores"] >= 1
    assert {"python", "loraloom"} <= record["versions"].keys()
    assert record["date"].endswith("+00:00")
    assert "base    | 42" in capsys.readouterr().out


def test_the_full_form_has_files_of_its_own(tmp_path: Path) -> None:
    assert main(["--full", "--out", str(tmp_path)], registry(42.0)) == 0
    assert main(["--out", str(tmp_path)], registry(42.0)) == 0
    names = {"edge.json", "edge-curve.png", "edge-full.json", "edge-full-curve.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    forms = [json.loads((tmp_path / name).read_text())["form"] for name in ("edge-full.json", "edge.json")]
    assert forms == ["full", "short"]


def test_a_missed_goal_shows_in_the_exit_status(tmp_path: Path) -> None:
    assert main(["edge", "--out", str(tmp_path)], registry(301.0)) == 1


def test_an_unknown_name_measures_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["edge", "edges", "--out", str(tmp_path)], registry(1.0))
    assert ended.value.code == 2
    assert "there are edge" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_driver_tells_of_the_gpus(tmp_path: Path) -> None:
    assert gpus("no-such-program") == []
    program = tmp_path / "smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA A100, 81920 MiB, 550.54'\n")
    program.chmod(0o755)
    assert gpus(str(program)) == ["NVIDIA A100, 81920 MiB, 550.54"]
    program.write_text("#!/bin/sh\necho 'no devices were found'; exit 6\n")
    assert gpus(str(program)) == []
