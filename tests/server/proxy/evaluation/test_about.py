"""What is told of a comparison beside its figures."""

import hashlib
import json
from pathlib import Path

from loraloom.server.proxy.evaluation.about import about
from loraloom.server.proxy.evaluation.plan import planned
from tests.server.proxy.evaluation.described import described, written


def test_everything_that_counts_has_a_digest_and_no_path_is_of_this_machine(tmp_path: Path) -> None:
    description = described(tmp_path, vllm="--dtype float32")
    told = about(planned(written(tmp_path, description), print))
    assert str(tmp_path) not in json.dumps(told)
    assert (told["spec"]["large"], told["spec"]["tasks"][0]["small_adapter"]) == ("large-model", "date-small")
    assert (told["vllm"], told["dtypes"]["proxy"]) == (["--dtype", "float32"], "float32")
    assert told["template"] == hashlib.sha256(b"{{ messages }}").hexdigest()
    date = told["digests"]["date"]
    for kind, file in (("test", "date.jsonl"), ("shots", "date-shots.jsonl")):
        assert date[kind] == hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
    assert date["small_adapter"] != date["large_adapter"]
    assert "loraloom" in told["versions"]


def test_other_shots_or_weights_have_another_digest(tmp_path: Path) -> None:
    path = written(tmp_path, described(tmp_path))
    before = about(planned(path, print))["digests"]["date"]
    (tmp_path / "date-shots.jsonl").write_text((tmp_path / "date-shots.jsonl").read_text() + "\n")
    config = tmp_path / "date-large/adapter_config.json"
    config.write_text(config.read_text() + "\n")
    after = about(planned(path, print))["digests"]["date"]
    assert {kind for kind in before if before[kind] != after[kind]} == {"shots", "large_adapter"}
