"""Which stored adapters the served base takes."""

import pytest

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.errors import BaseMismatch
from loraloom.adapters.manifest import Manifest
from loraloom.adapters.store import Store
from loraloom.server.base import ServedBase
from tests.server.conftest import BASE, SERVED, Publish

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
