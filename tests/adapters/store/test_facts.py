"""What was measured of an adapter: noted once, read by people, needed by nobody."""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from safetensors.numpy import load_file

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.normal import Normal, normalise
from loraloom.adapters.store import Store
from loraloom.adapters.store.facts import Facts, update_of
from loraloom.adapters.store.objects import LocalObjects, Objects
from loraloom.adapters.store.remote import RemoteObjects
from tests.adapters.small_adapters import MODULE, small_adapter

DIGEST = "d" * 64
PATH = MODULE.removeprefix("base_model.model.")


@pytest.fixture(params=["folder", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "folder":
        return LocalObjects(tmp_path)
    return RemoteObjects(f"memory://{tmp_path.name}", tmp_path / "cache")


@pytest.fixture
def normal(tmp_path: Path) -> Normal:
    (tmp_path / "normal").mkdir()
    return normalise(small_adapter(tmp_path / "given"), tmp_path / "normal")


def test_a_fact_is_noted_once(objects: Objects) -> None:
    facts = Facts(objects)
    assert facts.of(DIGEST) == {}
    assert facts.note(DIGEST, "effect", {"prompt": "ü", "tokens": 3})
    assert not facts.note(DIGEST, "effect", {"tokens": 4})
    assert facts.note(DIGEST, "update", {})
    assert Facts(objects).of(DIGEST) == {"effect": {"prompt": "ü", "tokens": 3}, "update": {}}


@pytest.mark.parametrize("kind", ["", "Effect", "a/b", "../x", "a.json"])
def test_a_kind_is_a_word(objects: Objects, kind: str) -> None:
    with pytest.raises(AssertionError):
        Facts(objects).note(DIGEST, kind, {})


@pytest.mark.parametrize("damaged", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_damaged_fact_is_found_and_stops_nothing(objects: Objects, damaged: bytes) -> None:
    facts = Facts(objects)
    facts.note(DIGEST, "update", {"modules": 1})
    objects.create(f"facts/{DIGEST}/effect.json", damaged)
    assert facts.of(DIGEST) == {"update": {"modules": 1}}
    (finding,) = facts.damaged(DIGEST)
    assert (finding.kind, finding.path) == ("fact", f"facts/{DIGEST}/effect.json")
    assert not facts.note(DIGEST, "effect", {})


def test_verify_reads_the_facts_of_live_versions(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    version = store.publish(small_adapter(tmp_path / "given"), "sql").version
    assert store.verify() == []
    (tmp_path / "store/facts" / version.digest / "effect.json").write_text("{")
    for findings in (store.verify(), store.verify("sql")):
        assert [(each.kind, each.path) for each in findings] == [("fact", f"facts/{version.digest}/effect.json")]
    assert list(store.facts(version.digest)) == ["update"]


def test_an_update_is_measured_as_numpy_does(normal: Normal, tmp_path: Path) -> None:
    tensors = load_file(tmp_path / "given/adapter_model.safetensors")
    norm = 2 * np.linalg.norm(tensors[f"{MODULE}.lora_B.weight"] @ tensors[f"{MODULE}.lora_A.weight"])
    fact = update_of(normal, None)
    assert fact == {
        "modules": 1,
        "rank": 2,
        "norm": pytest.approx(norm, rel=1e-6),
        "min": pytest.approx(norm, rel=1e-6),
        "median": pytest.approx(norm, rel=1e-6),
        "max": pytest.approx(norm, rel=1e-6),
        "zero": [],
    }
    base = BaseFingerprint(MappingProxyType({PATH: (8, 8), "lm_head": (8, 8)}), None)
    assert update_of(normal, base) == fact | {"matched": 1}


def test_several_norms(normal: Normal) -> None:
    several = replace(normal, norms=MappingProxyType({"b": 3.0, "c": 0.0, "a": 4.0, "d": 0.0, "e": 12.0}))
    fact = update_of(several, None)
    assert {key: fact[key] for key in ("modules", "norm", "min", "median", "max")} == {
        "modules": 5,
        "norm": 13.0,
        "min": 0.0,
        "median": 3.0,
        "max": 12.0,
    }
    assert fact["zero"] == ["c", "d"]
