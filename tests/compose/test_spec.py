"""Descriptions of jobs: what they may say, and how they are refused."""

from pathlib import Path
from typing import Any

import pytest

from loraloom.compose.errors import InvalidSpec
from loraloom.compose.optimizers import DEFAULT_OPTIMIZER, OPTIMIZERS
from loraloom.compose.spec import JobSpec, read_spec, spec_from

EXAMPLES = [{"prompt": "a", "completion": "b"}]


def test_only_examples_have_no_default() -> None:
    spec = spec_from({"examples": EXAMPLES})
    assert spec.optimizer.name == DEFAULT_OPTIMIZER
    assert (spec.pool.adapters, spec.method, spec.scorer, spec.objective) == ("all", "exact", "torch", "loss")
    assert (spec.holdout, spec.publish.when, spec.optimizer.budget) == ("auto", "if_better", 40)
    with pytest.raises(InvalidSpec, match="examples: Field required"):
        spec_from({})


def test_short_forms() -> None:
    spec = spec_from({"examples": EXAMPLES, "pool": ["sql@4", "date"], "publish": "always"})
    assert spec.pool.adapters == ("sql@4", "date")
    assert spec.publish.when == "always"
    assert spec_from({"examples": EXAMPLES, "pool": "tag:stable"}).pool.adapters == "tag:stable"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": 40}, "budget: there is no such field"),
        ({"optimizer": {"budget": 0}}, "optimizer.budget: Input should be greater than or equal to 1"),
        (
            {"optimizer": {"name": "Adam"}},
            f"optimizer.name: there is no optimizer 'Adam'; there are {', '.join(OPTIMIZERS)}",
        ),
        ({"optimizer": {"bounds": [0.5, 1]}}, "optimizer.bounds: give .low, high. with low at most 0"),
        ({"optimizer": {"bounds": [-1000, 1]}}, "optimizer.bounds"),
        ({"optimizer": {"l1": -1}}, "optimizer.l1"),
        ({"optimizer": {"l1": float("nan")}}, "optimizer.l1"),
        ({"optimizer": {"seed": -1}}, "optimizer.seed"),
        ({"pool": "everything"}, 'pool.adapters: give "all", "tag:NAME", or a list of adapters'),
        ({"pool": "tag:a b"}, "pool.adapters: .*not a valid selection"),
        ({"pool": ["sql@"]}, "pool.adapters: .*not a valid selection"),
        ({"pool": {"preselect": 1}}, "pool.preselect"),
        ({"pool": {"preselect": 4, "by": "similarity"}, "scorer": "server"}, "a server cannot compare by similarity"),
        ({"pool": ["a"] * 1001}, "pool.adapters: name 1000 adapters at the most, and not 1,001"),
        ({"pool": []}, "pool.adapters: name two adapters at the least"),
        ({"examples": 4}, "^examples: "),
        ({"publish": {"rank": 8}, "scorer": "server", "method": "lorahub"}, "a server truncates exact mixtures only"),
        ({"name": "two words"}, "name: .*not a valid selection"),
        ({"holdout": 1.5}, "holdout"),
        ({"holdout": 0.0}, "holdout"),
        ({"method": "ties"}, "method: Input should be 'exact' or 'lorahub'"),
        ({"scorer": "gpu"}, "scorer: Input should be 'torch' or 'server'"),
        ({"objective": "bleu"}, "objective: Input should be 'loss', 'exact_match' or 'choice'"),
        ({"publish": "sometimes"}, "publish.when"),
        ({"publish": {"tag": "4"}}, "publish.tag"),
        ({"publish": {"rank": 0}}, "publish.rank"),
        ({"server": {"concurrency": 0}}, "server.concurrency"),
        ({"threads": 0}, "threads"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        spec_from({"examples": EXAMPLES, **fields})


@pytest.mark.parametrize("value", [None, [], "text", 4])
def test_a_job_is_a_mapping(value: object) -> None:
    with pytest.raises(InvalidSpec, match="compose init"):
        spec_from(value)


def test_a_file_says_where_its_examples_are(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "job.yaml"
    path.parent.mkdir()
    path.write_text("examples: data.jsonl\nholdout: ../held.jsonl\n")
    spec = read_spec(path)
    assert spec.examples == path.parent / "data.jsonl"
    assert spec.holdout == path.parent / "../held.jsonl"


@pytest.mark.parametrize("text", ["a: [", "\x00", "- 4"])
def test_a_file_that_is_no_job(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(InvalidSpec):
        read_spec(tmp_path / "job.yaml")
    with pytest.raises(InvalidSpec, match="cannot be read"):
        read_spec(tmp_path / "none.yaml")


def test_json_gives_the_same_back() -> None:
    spec = spec_from({"examples": EXAMPLES, "holdout": EXAMPLES, "pool": ["a", "b"]})
    assert JobSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_a_base_beside_the_file_is_found_from_everywhere(tmp_path: Path) -> None:
    (tmp_path / "models/x").mkdir(parents=True)
    (tmp_path / "job.yaml").write_text("examples: data.jsonl\nbase: models/x\n")
    assert read_spec(tmp_path / "job.yaml").base == str(tmp_path / "models/x")
    (tmp_path / "job.yaml").write_text("examples: data.jsonl\nbase: org/model\n")
    assert read_spec(tmp_path / "job.yaml").base == "org/model"
