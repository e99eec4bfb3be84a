"""The pool of a job."""

from pathlib import Path

import pytest

from loraloom.adapters.base import BaseFingerprint, fingerprint
from loraloom.adapters.errors import AdapterNotFound
from loraloom.adapters.store import Store
from loraloom.compose.errors import InvalidPool
from loraloom.compose.pool import find_pool
from loraloom.compose.spec import JobSpec, spec_from
from tests.adapters.small_adapters import small_adapter
from tests.tiny_models import MakeAdapter


def spec(**fields: object) -> JobSpec:
    return spec_from({"examples": [{"prompt": "a", "completion": "b"}], **fields})


def test_all_of_the_base(store: Store, tiny_base: Path) -> None:
    pool = find_pool(store, spec())
    assert pool.names == ("a@1", "b@1", "org/c@1")
    assert pool.base == str(tiny_base)
    assert [member.rank for member in pool.members] == [4, 4, 2]
    assert pool.members[0].digest == store.versions("a")[0].digest


def test_a_list_keeps_its_order_and_its_versions(store: Store, make_adapter: MakeAdapter, tiny_base: Path) -> None:
    store.publish(make_adapter("new", seed=7), "b", base=fingerprint(tiny_base), base_name=str(tiny_base))
    assert find_pool(store, spec(pool=["org/c", "b", "b@1"])).names == ("org/c@1", "b@2", "b@1")


def test_what_a_tag_names(store: Store) -> None:
    for name in ("a", "org/c"):
        store.tag(name, "stable", 1)
    assert find_pool(store, spec(pool="tag:stable")).names == ("a@1", "org/c@1")


def test_what_the_job_published_before_is_not_in_it(store: Store) -> None:
    assert find_pool(store, spec(name="b")).names == ("a@1", "org/c@1")


def test_the_same_content_is_there_once(store: Store, make_adapter: MakeAdapter, tiny_base: Path) -> None:
    same = make_adapter("same", seed=0, r=4, lora_alpha=16)
    store.publish(same, "z", base=fingerprint(tiny_base), base_name=str(tiny_base))
    assert find_pool(store, spec()).names == ("a@1", "b@1", "org/c@1")
    with pytest.raises(InvalidPool, match="the pool has 1 adapters .a@1."):
        find_pool(store, spec(pool=["a", "z"]))


def test_one_of_another_base_is_left_out_of_all_and_refused_by_name(
    store: Store, tmp_path: Path, tiny_base: Path
) -> None:
    other = BaseFingerprint({"model.layers.0.self_attn.q_proj": (8, 8)}, None)
    store.publish(small_adapter(tmp_path / "other"), "other", base=other, base_name="elsewhere")
    assert find_pool(store, spec(base=str(tiny_base))).names == ("a@1", "b@1", "org/c@1")
    with pytest.raises(InvalidPool, match=r"other@1 was published for another base .elsewhere."):
        find_pool(store, spec(base=str(tiny_base), pool=["a", "other"]))
    for fields in ({}, {"pool": ["a", "other"]}):
        with pytest.raises(InvalidPool, match=r"of several bases .*tiny-llama, elsewhere.: name one of them"):
            find_pool(store, spec(**fields))


def test_one_that_is_not_bound_is_checked_now(store: Store, make_adapter: MakeAdapter, tiny_base: Path) -> None:
    store.publish(make_adapter("free", seed=5), "free")
    store.publish(small_adapter(tiny_base.parent / "small"), "odd")
    assert find_pool(store, spec(base=str(tiny_base))).names == ("a@1", "b@1", "free@1", "org/c@1")
    with pytest.raises(InvalidPool, match="odd@1 does not fit"):
        find_pool(store, spec(base=str(tiny_base), pool=["a", "odd"]))


def test_what_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(AdapterNotFound, match="nobody"):
        find_pool(store, spec(pool=["a", "nobody"]))
    with pytest.raises(InvalidPool, match="the pool has 1 adapters"):
        find_pool(store, spec(pool=["a"]))
    with pytest.raises(InvalidPool, match="cannot be found"):
        find_pool(store, spec(base="nobody/nothing-of-this-name"))
    with pytest.raises(InvalidPool, match="preselect is 4, and the pool has 3"):
        find_pool(store, spec(pool={"preselect": 4}))
    with pytest.raises(InvalidPool, match="the pool is empty: no adapter of the store is in 'all'") as told:
        find_pool(Store.open(tmp_path / "empty"), spec())
    assert str(tmp_path) not in str(told.value), "where a server's store is, is not for everybody"
    with pytest.raises(InvalidPool, match=r"one rank only .a@1 4, b@1 4, org/c@1 2."):
        find_pool(store, spec(method="lorahub"))


def test_an_adapter_that_does_not_say_its_base(tmp_path: Path, make_adapter: MakeAdapter) -> None:
    store = Store.open(tmp_path / "store")
    config = make_adapter("free") / "adapter_config.json"
    config.write_text(config.read_text().replace('"base_model_name_or_path": "', '"was": "'))
    store.publish(config.parent, "free")
    with pytest.raises(InvalidPool, match="no adapter of the pool says what its base model is"):
        find_pool(store, spec())


def test_a_base_that_is_a_folder_is_found_from_everywhere(
    store: Store, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_base.parent)
    assert find_pool(store, spec(base="tiny-llama")).base == str(tiny_base)
