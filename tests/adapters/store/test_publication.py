"""What a publication keeps of an adapter that was converted, and what it notes of each."""

import shutil
from pathlib import Path

import pytest

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.errors import BaseMismatch, InvalidAdapter, UnsupportedAdapter
from loraloom.adapters.store import Store, publication
from loraloom.adapters.store.bundles import Bundles
from loraloom.adapters.store.objects import LocalObjects
from tests.adapters.small_adapters import small_adapter

CONVERSION = {"kind": "DoRA", "exact": False}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return small_adapter(tmp_path / "plain")


@pytest.fixture
def other_kind(tmp_path: Path) -> Path:
    """An adapter that the store alone would refuse."""
    folder = small_adapter(tmp_path / "other-kind", seed=1)
    (folder / "adapter_config.json").write_text('{"peft_type": "IA3", "base_model_name_or_path": "ia3-base"}')
    (folder / "optimizer.pt").write_bytes(b"\x80not kept")
    return folder


def test_what_was_given_is_kept_and_what_it_became_is_served(
    store: Store, other_kind: Path, plain: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedAdapter):
        store.publish(other_kind, "ia3")
    version = store.publish(other_kind, "ia3", plain=plain, facts={"conversion": CONVERSION}).version
    assert version.digest == store.publish(plain, "plain").version.digest
    assert version.base_name == "tiny"
    kept = tmp_path / "store/originals" / version.original
    assert sorted(path.name for path in kept.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert all(path.read_bytes() == (other_kind / path.name).read_bytes() for path in kept.iterdir())
    assert store.facts(version.digest)["conversion"] == CONVERSION
    assert store.facts(version.digest)["update"]["modules"] == 1
    assert store.verify() == []


def test_an_adapter_without_weights_of_its_own_name(store: Store, other_kind: Path, plain: Path) -> None:
    (other_kind / "adapter_model.safetensors").unlink()
    assert store.publish(other_kind, "ia3", plain=plain).created
    assert store.verify() == []


def test_a_folder_with_nothing_to_keep_is_refused(store: Store, plain: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidAdapter, match="none of"):
        store.publish(tmp_path / "empty", "sql", plain=plain)
    assert store.names() == []
    assert store.verify() == []


def test_a_conversion_to_nothing_is_refused(store: Store, other_kind: Path, tmp_path: Path) -> None:
    zero = small_adapter(tmp_path / "zero", scale=0.0)
    with pytest.raises(InvalidAdapter, match="changes nothing"):
        store.publish(other_kind, "ia3", plain=zero)
    version = store.publish(other_kind, "ia3", plain=zero, allow_noop=True).version
    assert store.facts(version.digest)["update"]["zero"] == ["model.layers.0.self_attn.q_proj"]


def test_what_does_not_fit_its_base_is_refused_before_any_tensor_is_read(
    store: Store, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publication, "normalise", lambda *args, **named: pytest.fail("its tensors were read"))
    base = BaseFingerprint({"model.layers.0.self_attn.q_proj": (8, 16)}, None)
    with pytest.raises(BaseMismatch, match="8 x 8, there 8 x 16"):
        store.publish(plain, "sql", base=base)
    assert store.names() == []


def test_the_first_facts_stay(store: Store, plain: Path) -> None:
    store.publish(plain, "sql")
    base = BaseFingerprint({"model.layers.0.self_attn.q_proj": (8, 8)}, None)
    version = store.publish(plain, "sql", base=base, facts={"conversion": CONVERSION}).version
    assert "matched" not in store.facts(version.digest)["update"]
    assert store.facts(version.digest)["conversion"] == CONVERSION
    other = store.publish(small_adapter(plain.parent / "other", seed=3), "sql", base=base).version
    assert store.facts(other.digest)["update"]["matched"] == 1


def test_the_digests_of_the_record_are_those_of_the_bundles(store: Store, plain: Path, tmp_path: Path) -> None:
    version = store.publish(plain, "sql").version
    objects = LocalObjects(tmp_path / "store")
    assert Bundles(objects, "blobs").digests() == [version.digest]
    assert Bundles(objects, "originals").digests() == [version.original]


def test_facts_that_are_lost_stop_nothing(store: Store, plain: Path, tmp_path: Path) -> None:
    version = store.publish(plain, "sql").version
    shutil.rmtree(tmp_path / "store/facts")
    store = Store.open(tmp_path / "store")
    assert store.verify() == []
    assert store.facts(version.digest) == {}
    assert store.publish(plain, "sql").version == version
    assert store.facts(version.digest).keys() == {"update"}
