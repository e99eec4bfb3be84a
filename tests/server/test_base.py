"""Which stored adapters the served base takes, and whose they are where there are two."""

from pathlib import Path

import pytest

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.errors import BaseMismatch
from loraloom.adapters.manifest import Manifest, read_manifest
from loraloom.adapters.store import Store
from loraloom.server.base import ServedBase, ServedPair
from loraloom.server.errors import InvalidBody
from tests.adapters.small_adapters import small_adapter
from tests.server.conftest import BASE, SERVED, SMALL, SMALL_BASE, Publish

OTHER_TOKENIZER = BaseFingerprint(SERVED.modules, tokenizer="f" * 64)
OTHER_SHAPE = BaseFingerprint({"model.layers.0.self_attn.q_proj": (16, 8)}, tokenizer=SERVED.tokenizer)
OTHER_MODULES = BaseFingerprint({"model.layers.0.self_attn.k_proj": (8, 8)}, tokenizer=SERVED.tokenizer)


def test_an_adapter_of_this_very_base(served_base: ServedBase, publish: Publish) -> None:
    served_base.check(publish("sql"))


def test_an_unbound_adapter_that_fits(served_base: ServedBase, publish: Publish) -> None:
    served_base.check(publish("sql", base=None))


@pytest.mark.parametrize("other", [OTHER_SHAPE, OTHER_MODULES])
def test_an_unbound_adapter_that_does_not(store: Store, publish: Publish, other: BaseFingerprint) -> None:
    record = publish("sql", base=None)
    with pytest.raises(BaseMismatch, match="q_proj"):
        ServedBase(BASE, other, store).check(record)


def test_an_adapter_of_another_base_is_told_by_names(store: Store, publish: Publish) -> None:
    """Also one whose modules would fit: the tokenizer is another."""
    record = publish("sql")
    with pytest.raises(BaseMismatch, match=r"'sql@1' was published for the base 'tiny'.*served 'large'"):
        ServedBase("large", OTHER_TOKENIZER, store).check(record)


class CountingStore(Store):
    """Counts how often an adapter is looked into."""

    looks = 0

    def manifest(self, digest: str) -> Manifest:
        self.looks += 1
        return super().manifest(digest)


def test_an_unbound_adapter_is_looked_into_once(store: Store, publish: Publish) -> None:
    record = publish("sql", base=None)
    counting = CountingStore.open(store.url)
    assert isinstance(counting, CountingStore)
    base = ServedBase(BASE, SERVED, counting)
    for _ in range(3):
        base.check(record)
    assert counting.looks == 1
    mismatched = ServedBase(BASE, OTHER_SHAPE, counting)
    for _ in range(2):
        with pytest.raises(BaseMismatch):
            mismatched.check(record)
    assert counting.looks == 3


def test_one_base_owns_all_that_fits(served_base: ServedBase, publish: Publish, tmp_path: Path) -> None:
    assert list(served_base.all) == [served_base]
    assert served_base.owner(publish("sql")) is served_base
    with pytest.raises(BaseMismatch):
        served_base.owner(publish("foreign", base=OTHER_TOKENIZER))
    manifest = read_manifest(small_adapter(tmp_path / "new", width=6))
    assert served_base.owner_of_new(manifest) is served_base, "which says what does not fit when it is published"


def test_a_pair_knows_whose_an_adapter_is(
    served_pair: ServedPair, publish: Publish, publish_small: Publish, tmp_path: Path
) -> None:
    large, small = served_pair.all
    for owner, publish_one in ((large, publish), (small, publish_small)):
        for record in (publish_one("bound"), publish_one("unbound", base=None)):
            served_pair.check(record)
            assert served_pair.owner(record) is owner
            assert served_pair.steers(record) == (owner is small)
    for owner, width in ((large, 8), (small, 4)):
        assert served_pair.owner_of_new(read_manifest(small_adapter(tmp_path / f"{width}", width=width))) is owner


def test_an_adapter_of_neither(served_pair: ServedPair, publish: Publish, tmp_path: Path) -> None:
    record = publish("sql", base=None, width=6)
    with pytest.raises(BaseMismatch, match="'sql@1' fits neither .* 'tiny': .*there 8 x 8.*; 'tinier': .*there 4 x 4"):
        served_pair.check(record)
    assert served_pair.owner_of_new(read_manifest(small_adapter(tmp_path / "new", width=6))) is served_pair


@pytest.fixture
def alike(store: Store) -> ServedPair:
    """Two models of the same modules, as a model and a tuned copy of it are."""
    return ServedPair(
        ServedBase("large", SERVED, store, "org/great"), ServedBase("small", SERVED, store, "org/small"), store
    )


@pytest.mark.parametrize(("said", "steers"), [("large", False), ("/elsewhere/great", False), ("org/small", True)])
def test_of_two_models_alike_the_one_that_is_named(
    alike: ServedPair, publish: Publish, said: str, steers: bool
) -> None:
    assert alike.steers(publish("sql", base_name=said)) == steers


def test_what_fits_both_and_names_neither(alike: ServedPair, publish: Publish, tmp_path: Path) -> None:
    """Its configuration calls the base "tiny"."""
    told = "fits the large model 'large' and the small one 'small' alike: publish it with the field `base`"
    with pytest.raises(BaseMismatch, match=f"adapter 'sql@1' {told}"):
        alike.check(publish("sql", base=None))
    with pytest.raises(BaseMismatch, match=f"this adapter {told}"):
        alike.owner_of_new(read_manifest(small_adapter(tmp_path / "new")))


@pytest.mark.parametrize("called", ["large", "small"])
def test_a_new_adapter_that_fits_both_is_of_the_one_that_it_names(store: Store, tmp_path: Path, called: str) -> None:
    """Its configuration calls the base "tiny"."""
    models = {name: "org/tiny" if name == called else "org/other" for name in ("large", "small")}
    pair = ServedPair(*(ServedBase(name, SERVED, store, model) for name, model in models.items()), store)
    assert pair.owner_of_new(read_manifest(small_adapter(tmp_path / "new"))).name == called


def test_a_model_by_its_name_or_its_folder(served_pair: ServedPair) -> None:
    large, small = served_pair.all
    assert served_pair.named(BASE) is served_pair.named(f"/models/{BASE}") is large
    assert served_pair.named(SMALL_BASE) is served_pair.named(f"/models/{SMALL_BASE}") is small
    assert small.fingerprint == SMALL
    with pytest.raises(InvalidBody, match="adapters of 'tiny' and 'tinier', and not of 'org/tinier'") as refusal:
        served_pair.named("org/tinier")
    assert refusal.value.param == "base"


def test_whose_an_adapter_is_is_looked_up_once(
    served_pair: ServedPair, store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = publish("sql", base=None)
    owner = served_pair.owner(record)
    monkeypatch.setattr(store, "manifest", None)
    assert served_pair.owner(record) is owner
