"""From a request's fields to one immutable version, or to an error that says what to do."""

import threading
from pathlib import Path
from typing import Any

import pytest

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.errors import AdapterNotFound, BaseMismatch, InvalidName, VersionNotFound
from loraloom.adapters.names import parse_adapter
from loraloom.adapters.store import Store
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.base import ServedBase
from loraloom.server.errors import InvalidBody, NotServed, RankTooHigh
from loraloom.server.gate.exchange import Choice
from loraloom.server.gate.selection import Selector, rewritten
from tests.adapters.small_adapters import small_adapter
from tests.server.conftest import BASE, MAX_RANK, SERVED, Publish

OTHER_BASE = BaseFingerprint({"model.layers.0.self_attn.q_proj": (8, 8)}, tokenizer="f" * 64)


@pytest.fixture
def selector(store: Store, served_base: ServedBase) -> Selector:
    return Selector(store, [BASE, "tiny-alias"], served_base, MAX_RANK)


@pytest.fixture
def two(publish: Publish) -> tuple[VersionRecord, VersionRecord]:
    """Two versions of one adapter; the tag "stable" stands at the first."""
    return publish("org/sql", tag="stable"), publish("org/sql")


@pytest.mark.parametrize("model", [BASE, "tiny-alias"])
async def test_the_base_model_by_any_of_its_names(selector: Selector, model: str) -> None:
    assert await selector.choose({"model": model}) == Choice(model)


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": ""}])
async def test_without_a_model_the_base(selector: Selector, body: dict[str, Any]) -> None:
    assert await selector.choose(body) == Choice(BASE)


async def test_versions_tags_and_digests(selector: Selector, two: tuple[VersionRecord, VersionRecord]) -> None:
    first, second = two
    for version, expected in {
        "": second,
        "@latest": second,
        "@stable": first,
        "@1": first,
        "@2": second,
        f"@sha256:{first.digest}": first,
        f"@sha256:{first.digest[:8]}": first,
    }.items():
        assert await selector.choose({"model": f"org/sql{version}"}) == Choice(expected.canonical, expected)


@pytest.mark.parametrize(
    "fields",
    [
        {"adapter": "org/sql@1"},
        {"adapter": {"name": "org/sql", "version": 1}},
        {"adapter": {"name": "org/sql", "version": "1"}},
        {"adapter": {"name": "org/sql", "version": "stable"}},
        {"adapter_id": "org/sql@1"},
        {"adapter_id": "org/sql@stable", "adapter_source": "s3"},
        {"adapter": "org/sql@1", "adapter_id": None, "merged_adapters": None},
    ],
)
async def test_a_field_of_its_own_chooses_beside_the_base(
    selector: Selector, two: tuple[VersionRecord, VersionRecord], fields: dict[str, Any]
) -> None:
    for model in ({}, {"model": None}, {"model": ""}, {"model": BASE}, {"model": "tiny-alias"}):
        assert await selector.choose({**model, **fields}) == Choice("org/sql@1", two[0])


@pytest.mark.parametrize("field", ["adapter", "adapter_id", "merged_adapters"])
async def test_two_fields_may_not_both_choose(selector: Selector, field: str) -> None:
    with pytest.raises(InvalidBody, match="both choose an adapter") as refusal:
        await selector.choose({"model": "org/sql", field: "org/sql"})
    assert refusal.value.param == field


async def test_nor_may_two_of_the_further_fields(selector: Selector) -> None:
    with pytest.raises(InvalidBody, match="`adapter` and `adapter_id`"):
        await selector.choose({"adapter": "sql", "adapter_id": "sql"})


@pytest.mark.parametrize("model", [1, True, 0, False, [], {}, ["sql"], {"name": "sql"}, 1.5])
async def test_a_model_that_is_no_text(selector: Selector, model: object) -> None:
    with pytest.raises(InvalidBody, match="`model` must be a string") as refusal:
        await selector.choose({"model": model})
    assert refusal.value.param == "model"


@pytest.mark.parametrize("value", [1, True, [], {"name": "sql"}])
async def test_an_adapter_id_that_is_no_text(selector: Selector, value: object) -> None:
    with pytest.raises(InvalidBody, match="`adapter_id` must be a string"):
        await selector.choose({"adapter_id": value})


@pytest.mark.parametrize("value", [1, True, [], {}, {"name": 1}, {"name": "a", "mix": {}}, {"name": "a", "x": 1}, ""])
async def test_an_adapter_field_of_another_shape(selector: Selector, value: object) -> None:
    with pytest.raises(InvalidName):
        await selector.choose({"adapter": value})


@pytest.mark.parametrize(
    "body",
    [
        {"model": "0.6*sql@4+0.4*date"},
        {"model": "sql+date"},
        {"model": "svd(rank=16):sql+date"},
        {"model": "0.5*sql"},
        {"adapter": "sql+date"},
        {"adapter": {"mix": {"sql@4": 0.6, "date": 0.4}, "method": "exact"}},
        {"adapter_id": "sql+date"},
        {"merged_adapters": {"ids": ["a", "b"], "weights": [0.5, 0.5]}},
        {"merged_adapters": []},
    ],
)
async def test_mixtures_are_well_formed_and_not_available(selector: Selector, body: dict[str, Any]) -> None:
    with pytest.raises(NotServed, match="mixtures are not available on this server"):
        await selector.choose(body)


@pytest.mark.parametrize(
    "body", [{"model": "sql~0.8"}, {"adapter": {"name": "sql", "alpha": 0.8}}, {"model": "sql+date~-1"}]
)
async def test_a_proxy_strength_is_not_available(selector: Selector, body: dict[str, Any]) -> None:
    with pytest.raises(NotServed, match="not available on this server: it is not proxy-tuned"):
        await selector.choose(body)


@pytest.mark.parametrize(
    ("model", "position"),
    [("sql@", 4), ("sql/../x", 4), ("/etc/passwd", 0), ("sql\0", 3), ("a b", 1), ("sql@-1", 4), ("sql@01", 4)],
)
async def test_what_does_not_follow_the_grammar(selector: Selector, model: str, position: int) -> None:
    with pytest.raises(InvalidName) as refusal:
        await selector.choose({"model": model})
    assert refusal.value.position == position


async def test_an_unknown_name_comes_with_the_nearest(
    selector: Selector, two: tuple[VersionRecord, VersionRecord]
) -> None:
    with pytest.raises(AdapterNotFound) as refusal:
        await selector.choose({"model": "org/sqi"})
    assert refusal.value.nearest == ("org/sql",)


@pytest.mark.parametrize("version", ["3", "canary", "sha256:00000000"])
async def test_an_unknown_version_comes_with_those_there_are(
    selector: Selector, two: tuple[VersionRecord, VersionRecord], version: str
) -> None:
    with pytest.raises(VersionNotFound) as refusal:
        await selector.choose({"model": f"org/sql@{version}"})
    assert {"1", "2", "stable", "latest"} <= set(refusal.value.nearest)


async def test_a_removed_version_is_unknown(
    selector: Selector, two: tuple[VersionRecord, VersionRecord], store: Store
) -> None:
    store.remove("org/sql", 2)
    assert (await selector.choose({"model": "org/sql"})).model == "org/sql@1"
    with pytest.raises(VersionNotFound):
        await selector.choose({"model": "org/sql@2"})


async def test_a_rank_over_the_limit_comes_with_both_numbers(selector: Selector, publish: Publish) -> None:
    publish("fits", rank=MAX_RANK)
    publish("too-large", rank=MAX_RANK + 1)
    assert (await selector.choose({"model": "fits"})).model == "fits@1"
    with pytest.raises(RankTooHigh, match="rank 17; this server serves up to 16"):
        await selector.choose({"model": "too-large"})


async def test_an_adapter_of_another_base(selector: Selector, publish: Publish) -> None:
    publish("foreign", base=OTHER_BASE)
    with pytest.raises(BaseMismatch, match="was published for the base"):
        await selector.choose({"model": "foreign"})


async def test_the_base_in_another_case_is_no_base(selector: Selector) -> None:
    with pytest.raises(AdapterNotFound):
        await selector.choose({"model": BASE.upper()})


def test_resolving_without_a_request(selector: Selector, two: tuple[VersionRecord, VersionRecord]) -> None:
    assert selector.resolve(parse_adapter("org/sql@stable")) == two[0]


class RecordingStore(Store):
    """A store that notes in which thread it is asked."""

    asked: threading.Thread

    def resolve(self, adapter: Any) -> VersionRecord:
        self.asked = threading.current_thread()
        return super().resolve(adapter)


@pytest.mark.parametrize(("url", "in_a_thread"), [("{tmp}/store", False), ("memory://selection", True)])
async def test_a_remote_store_is_asked_in_a_thread(tmp_path: Path, url: str, in_a_thread: bool) -> None:
    store = RecordingStore.open(url.format(tmp=tmp_path), cache=tmp_path / "cache")
    assert isinstance(store, RecordingStore)
    if store.local:
        store.publish(small_adapter(tmp_path / "sql"), "sql", base=SERVED)
    selector = Selector(store, [BASE], ServedBase(BASE, SERVED, store), MAX_RANK)
    try:
        await selector.choose({"model": "sql"})
    except AdapterNotFound:
        assert not store.local
    assert (store.asked is not threading.main_thread()) == in_a_thread


def test_the_engine_gets_the_canonical_name_and_no_field_of_ours() -> None:
    body = {"model": "sql", "adapter": 1, "adapter_id": 2, "merged_adapters": 3, "adapter_source": 4, "prompt": "x"}
    assert rewritten(body, Choice("sql@4")) == {"model": "sql@4", "prompt": "x"}
    assert rewritten({"prompt": "x"}, Choice(BASE)) == {"prompt": "x", "model": BASE}
    assert len(body) == 6
