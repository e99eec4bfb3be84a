from pathlib import Path

from loraloom.adapters.store import Store
from tests.adapters.small_adapters import small_adapter
from tests.faults.victim import _flip, _slightly_changed


def test_a_victim_has_bytes_of_its_own_and_is_damaged_by_one_of_them(tmp_path: Path) -> None:
    store, source = Store.open(tmp_path / "store"), small_adapter(tmp_path / "source")
    first = store.publish(source, "victim").version
    second = store.publish(_slightly_changed(source, tmp_path / "changed", 1), "victim").version
    assert (first.number, second.number) == (1, 2)
    weights = store.folder(second.digest) / "adapter_model.safetensors"
    before = weights.read_bytes()
    _flip(weights)
    assert [one != other for one, other in zip(before, weights.read_bytes(), strict=True)].count(True) == 1
    assert [finding.path for finding in store.verify() if finding.kind == "damaged"] == [f"blobs/{second.digest}"]
    store.publish(tmp_path / "changed", "victim")
    assert weights.read_bytes() == before
