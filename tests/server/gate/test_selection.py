"""From a request's fields to one immutable version, or to an error that says what to do."""

import threading
from pathlib import Path
from typing import Any

import pytest

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.errors import AdapterNotFound, BaseMismatch, InvalidMixture, InvalidName, VersionNotFound
from loraloom.adapters.mixtures.mix import Limit
from loraloom.adapters.mixtures.recipe import Recipe
from loraloom.adapters.names import Adapter, parse, parse_adapter
from loraloom.adapters.store import Store
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.access.access import Access, Role
from loraloom.server.access.patterns import Patterns
from loraloom.server.access.view import View
from loraloom.server.base import ServedBase, ServedPair
from loraloom.server.errors import InvalidAlpha, InvalidBody, NotServed, RankTooHigh
from loraloom.server.gate.exchange import Choice
from loraloom.server.gate.placement import Application
from loraloom.server.gate.recent import Recent
from loraloom.server.gate.selection import MOST_RANKS, Selector
from loraloom.server.proxy.placement import OnThePair
from tests.adapters.small_adapters import small_adapter
from tests.server.conftest import BASE, MAX_RANK, SERVED, Publish

OTHER_BASE = BaseFingerprint({"model.layers.0.self_attn.q_proj": (8, 8)}, tokenizer="f" * 64)


@pytest.fixture
def selector(store: Store, served_base: ServedBase) -> Selector:
    return Selector(store, [BASE, "tiny-alias"], served_base, Limit(MAX_RANK), max_mixture_terms=4)


@pytest.fixture
def two(publish: Publish) -> tuple[VersionRecord, VersionRecord]:
    """Two versions of one adapter; the tag "stable" stands at the first."""
    return publish("org/sql", tag="stable"), publish("org/sql")


@pytest.mark.parametrize("model", [BASE, "tiny-alias"])
async def test_the_base_model_by_any_of_its_names(selector: Selector, model: str) -> None:
    assert await selector.choose({"model": model}, selector.everything) == Choice(model)


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": ""}])
async def test_without_a_model_the_base(selector: Selector, body: dict[str, Any]) -> None:
    assert await selector.choose(body, selector.everything) == Choice(BASE)


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
        assert await selector.choose({"model": f"org/sql{version}"}, selector.everything) == Choice(
            expected.canonical, expected.digest
        )


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
        assert await selector.choose({**model, **fields}, selector.everything) == Choice("org/sql@1", two[0].digest)


@pytest.mark.parametrize("field", ["adapter", "adapter_id", "merged_adapters"])
async def test_two_fields_may_not_both_choose(selector: Selector, field: str) -> None:
    with pytest.raises(InvalidBody, match="both choose an adapter") as refusal:
        await selector.choose({"model": "org/sql", field: "org/sql"}, selector.everything)
    assert refusal.value.param == field


async def test_nor_may_two_of_the_further_fields(selector: Selector) -> None:
    with pytest.raises(InvalidBody, match="`adapter` and `adapter_id`"):
        await selector.choose({"adapter": "sql", "adapter_id": "sql"}, selector.everything)


@pytest.mark.parametrize("model", [1, True, 0, False, [], {}, ["sql"], {"name": "sql"}, 1.5])
async def test_a_model_that_is_no_text(selector: Selector, model: object) -> None:
    with pytest.raises(InvalidBody, match="`model` must be a string") as refusal:
        await selector.choose({"model": model}, selector.everything)
    assert refusal.value.param == "model"


@pytest.mark.parametrize("value", [1, True, [], {"name": "sql"}])
async def test_an_adapter_id_that_is_no_text(selector: Selector, value: object) -> None:
    with pytest.raises(InvalidBody, match="`adapter_id` must be a string"):
        await selector.choose({"adapter_id": value}, selector.everything)


@pytest.mark.parametrize("value", [1, True, [], {}, {"name": 1}, {"name": "a", "mix": {}}, {"name": "a", "x": 1}, ""])
async def test_an_adapter_field_of_another_shape(selector: Selector, value: object) -> None:
    with pytest.raises(InvalidName):
        await selector.choose({"adapter": value}, selector.everything)


@pytest.fixture
def mixable(publish: Publish) -> None:
    """The adapters a, b and c at their first versions, and b at a second."""
    for name in ("a", "b", "c", "b"):
        publish(name)


@pytest.mark.usefixtures("mixable")
@pytest.mark.parametrize(
    ("fields", "model"),
    [
        ({"model": "0.6*a+0.4*b"}, "0.6*a@1+0.4*b@2"),
        ({"model": "0.4*b + 0.6*a@latest"}, "0.6*a@1+0.4*b@2"),
        ({"model": "a+b@1"}, "1*a@1+1*b@1"),
        ({"model": "0.5*a"}, "0.5*a@1"),
        ({"model": "a+a+b"}, "2*a@1+1*b@2"),
        ({"model": "a+b+-1*b"}, "a@1"),
        ({"model": "1*a"}, "a@1"),
        ({"model": "0*b+1*a"}, "a@1"),
        ({"model": "0.5*a+0.5*a@1"}, "a@1"),
        ({"model": "-0.5*c+a"}, "1*a@1+-0.5*c@1"),
        ({"model": "lorahub:1*a"}, "lorahub:1*a@1"),
        ({"model": "svd(rank=3):a+b"}, "svd(rank=3):1*a@1+1*b@2"),
        ({"adapter": "a+b"}, "1*a@1+1*b@2"),
        ({"adapter": {"mix": {"a": 0.6, "b@1": 0.4}, "method": "exact"}}, "0.6*a@1+0.4*b@1"),
        ({"adapter": {"mix": {"a": 1, "b": 2}, "method": "lorahub"}}, "lorahub:2*b@2+1*a@1"),
        ({"adapter_id": "a+b"}, "1*a@1+1*b@2"),
        ({"merged_adapters": {"ids": ["a", "b@1"], "weights": [0.25, 0.75]}}, "0.75*b@1+0.25*a@1"),
        ({"merged_adapters": {"ids": ["a", "b"], "merge_strategy": "linear"}}, "1*a@1+1*b@2"),
    ],
)
async def test_mixtures_in_every_form(selector: Selector, fields: dict[str, Any], model: str) -> None:
    choice = await selector.choose(fields, selector.everything)
    assert choice.model == model
    assert selector.settle(parse(model), selector.everything) == choice, "the canonical name selects the same"


@pytest.mark.usefixtures("mixable")
async def test_a_mixture_of_a_tag_follows_it_and_one_of_a_version_does_not(selector: Selector, store: Store) -> None:
    store.tag("b", "stable", 1)
    fixed, following = "a+b@1", "a+b@stable"
    before = [(await selector.choose({"model": model}, selector.everything)).model for model in (fixed, following)]
    store.tag("b", "stable", 2)
    after = [(await selector.choose({"model": model}, selector.everything)).model for model in (fixed, following)]
    assert before == ["1*a@1+1*b@1"] * 2
    assert after == ["1*a@1+1*b@1", "1*a@1+1*b@2"]


@pytest.mark.usefixtures("mixable")
@pytest.mark.parametrize("model", ["0*a", "a+-1*a", "0*a+0*b", "0.5*b+-0.5*b@2"])
async def test_what_adds_up_to_nothing_is_the_base(selector: Selector, model: str) -> None:
    assert await selector.choose({"model": model}, selector.everything) == Choice(BASE)


@pytest.mark.usefixtures("mixable")
async def test_equal_content_under_other_names_is_one_recipe(selector: Selector, publish: Publish) -> None:
    publish("twin", seed=0)  # what the first adapter, a, was made of
    recipes = [
        (await selector.choose({"model": model}, selector.everything)).content
        for model in ("0.5*a+c", "c+0.5*twin", "0.4*a+c")
    ]
    assert all(isinstance(recipe, Recipe) for recipe in recipes)
    keys = [recipe.key for recipe in recipes if isinstance(recipe, Recipe)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.usefixtures("mixable")
@pytest.mark.parametrize("model", ["101*a+b", "-101*a", "60*a+60*a", "1e308*a+b"])
async def test_weights_beyond_all_reason(selector: Selector, model: str) -> None:
    with pytest.raises(InvalidMixture, match="the weight of a@1 is .*: give one from -100 to 100"):
        await selector.choose({"model": model}, selector.everything)


async def test_too_many_terms_are_refused_before_they_are_looked_up(selector: Selector) -> None:
    with pytest.raises(InvalidMixture, match="has 5 terms, and this server takes up to 4"):
        await selector.choose({"model": "+".join(["unknown"] * 5)}, selector.everything)


async def test_a_flood_of_terms_is_not_even_read(selector: Selector) -> None:
    with pytest.raises(InvalidName, match="at most 2048 terms, and not 100000"):
        await selector.choose(
            {"adapter": {"mix": dict.fromkeys(map(str, range(100_000)), "no number")}}, selector.everything
        )


async def test_a_name_that_would_be_too_long_to_be_asked_for_again(
    store: Store, served_base: ServedBase, publish: Publish
) -> None:
    names = [f"{'x' * 60}{number:02}" for number in range(62)]
    for name in names:
        publish(name, seed=1)
    asked = "+".join(names)
    assert len(asked) <= 4096
    selector = Selector(store, [BASE], served_base, Limit(MAX_RANK), max_mixture_terms=100)
    with pytest.raises(InvalidMixture, match="more than 4096 characters"):
        await selector.choose({"model": asked}, selector.everything)


@pytest.mark.usefixtures("mixable")
async def test_an_unknown_term(selector: Selector) -> None:
    with pytest.raises(AdapterNotFound, match="there is no adapter 'unknown'"):
        await selector.choose({"model": "a+0*unknown"}, selector.everything)


@pytest.mark.usefixtures("mixable")
async def test_a_term_of_another_base(selector: Selector, publish: Publish) -> None:
    publish("foreign", base=OTHER_BASE)
    with pytest.raises(BaseMismatch, match="was published for the base"):
        await selector.choose({"model": "a+foreign"}, selector.everything)


@pytest.mark.parametrize(
    "body",
    [
        {"model": "ties(density=0.5):a+b"},
        {"model": "dare_linear(density=0.5):a+b"},
        {"adapter": {"mix": {"a": 1}, "method": "dare_ties(density=0.5)"}},
        {"merged_adapters": {"ids": ["a", "b"], "merge_strategy": "ties", "density": 0.2}},
    ],
)
async def test_methods_on_whole_matrices_are_not_for_requests(selector: Selector, body: dict[str, Any]) -> None:
    with pytest.raises(NotServed, match="publish the mixture with POST /v1/mixtures"):
        await selector.choose(body, selector.everything)


async def test_an_adapter_over_the_rank_can_be_truncated(selector: Selector, publish: Publish) -> None:
    publish("large", rank=MAX_RANK + 1)
    with pytest.raises(RankTooHigh, match=r"ask for svd\(rank=16\):large@1"):
        await selector.choose({"model": "1*large"}, selector.everything)
    assert (
        await selector.choose({"model": "svd(rank=16):large"}, selector.everything)
    ).model == "svd(rank=16):1*large@1"


@pytest.mark.parametrize(
    "body",
    [
        {"model": "a~0.8"},
        {"adapter": {"name": "a", "alpha": 0.8}},
        {"model": "a+b~-1"},
        {"model": f"{BASE}~0"},
        {"adapter": {"name": "tiny-alias", "alpha": 1}},
    ],
)
@pytest.mark.usefixtures("mixable")
async def test_a_proxy_strength_is_not_available(selector: Selector, body: dict[str, Any]) -> None:
    with pytest.raises(NotServed, match="not available on this server: it is not proxy-tuned"):
        await selector.choose(body, selector.everything)


@pytest.fixture
def proxied(store: Store, served_pair: ServedPair, publish_small: Publish, publish: Publish) -> Selector:
    """Of a proxy-tuned server with the adapters a, b of the small model and c of the large one."""
    for name in ("a", "b"):
        publish_small(name)
    publish("c")
    placement = OnThePair(BASE, served_pair, alpha=1.0, most=4.0, own_expert=False)
    return Selector(store, [BASE, "tiny-alias"], served_pair, Limit(MAX_RANK), 4, placement)


@pytest.mark.parametrize(
    ("fields", "model"),
    [
        ({"model": "a"}, "a@1~1"),
        ({"model": "a~0.5"}, "a@1~0.5"),
        ({"model": "a@latest~-4"}, "a@1~-4"),
        ({"adapter": {"name": "a", "alpha": 0}}, "a@1~0"),
        ({"adapter": "a~0.25"}, "a@1~0.25"),
        ({"model": "a+b~2"}, "1*a@1+1*b@1~2"),
        ({"adapter": {"mix": {"a": 0.5, "c": 1}, "alpha": 1.5}}, "1*c@1+0.5*a@1~1.5"),
        ({"adapter_id": "a~2"}, "a@1~2"),
        ({"merged_adapters": {"ids": ["a", "b"], "weights": [0.25, 0.75]}}, "0.75*b@1+0.25*a@1~1"),
        ({"model": "svd(rank=1):a+b~2"}, "svd(rank=1):1*a@1+1*b@1~2"),
        ({"model": "c"}, "c@1"),
        ({"model": "0.5*c"}, "0.5*c@1"),
        ({"model": BASE}, BASE),
        ({"model": "a+-1*a"}, BASE),
    ],
)
async def test_what_a_proxy_tuned_server_takes(proxied: Selector, fields: dict[str, Any], model: str) -> None:
    choice = await proxied.choose(fields, proxied.everything)
    assert choice.model == model
    assert await proxied.choose({"model": model}, proxied.everything) == choice, "the canonical name selects the same"


@pytest.mark.parametrize("name", [BASE, "tiny-alias"])
async def test_the_base_and_a_strength_is_the_expert_alone(proxied: Selector, name: str) -> None:
    with pytest.raises(InvalidAlpha, match="needs an adapter of the small model"):
        await proxied.choose({"model": f"{name}~0"}, proxied.everything)


@pytest.mark.parametrize("body", [{"model": "a~4.5"}, {"adapter": {"name": "a", "alpha": -5}}, {"model": "a+-1*a~1"}])
async def test_strengths_that_are_refused(proxied: Selector, body: dict[str, Any]) -> None:
    with pytest.raises(InvalidAlpha):
        await proxied.choose(body, proxied.everything)


@pytest.mark.parametrize("model", ["c~1", "0.5*c~1"])
async def test_an_adapter_of_the_large_model_takes_no_strength(proxied: Selector, model: str) -> None:
    with pytest.raises(InvalidAlpha, match="was trained on the large model"):
        await proxied.choose({"model": model}, proxied.everything)


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), 10**400, "1", True])
async def test_strengths_that_are_no_numbers(proxied: Selector, alpha: object) -> None:
    with pytest.raises(InvalidName):
        await proxied.choose({"adapter": {"name": "a", "alpha": alpha}}, proxied.everything)
    with pytest.raises(InvalidName):
        await proxied.choose({"model": "a~nan"}, proxied.everything)


async def test_a_proxy_tuned_server_serves_adapters_of_its_two_models_only(proxied: Selector, publish: Publish) -> None:
    publish("strange", base=None, width=6)
    with pytest.raises(BaseMismatch, match="fits neither"):
        await proxied.choose({"model": "strange~1"}, proxied.everything)


async def test_an_adapter_that_fits_both_models(store: Store, publish: Publish) -> None:
    models = (ServedBase(name, SERVED, store) for name in ("large", "small"))
    selector = Selector(store, ["large"], ServedPair(*models, store), Limit(MAX_RANK))
    publish("sql", base=None)
    with pytest.raises(BaseMismatch, match="fits the large model 'large' and the small one 'small' alike"):
        await selector.choose({"model": "sql"}, selector.everything)


async def test_the_rank_counts_on_a_proxy_tuned_server_too(proxied: Selector, publish_small: Publish) -> None:
    publish_small("large", rank=MAX_RANK + 1)
    for model in ("large~1", "1*large~1"):
        with pytest.raises(RankTooHigh, match="rank 17; this server serves up to 16"):
            await proxied.choose({"model": model}, proxied.everything)


def test_how_a_version_acts(selector: Selector, proxied: Selector, store: Store) -> None:
    a = proxied.resolve(parse_adapter("a"), proxied.everything)
    assert proxied.application(a) == Application("a@1~1", by_proxy=True, alpha=1.0)
    assert selector.application(a) == Application("a@1")


@pytest.mark.parametrize(
    ("model", "position"),
    [("sql@", 4), ("sql/../x", 4), ("/etc/passwd", 0), ("sql\0", 3), ("a b", 1), ("sql@-1", 4), ("sql@01", 4)],
)
async def test_what_does_not_follow_the_grammar(selector: Selector, model: str, position: int) -> None:
    with pytest.raises(InvalidName) as refusal:
        await selector.choose({"model": model}, selector.everything)
    assert refusal.value.position == position


async def test_an_unknown_name_comes_with_the_nearest(
    selector: Selector, two: tuple[VersionRecord, VersionRecord]
) -> None:
    with pytest.raises(AdapterNotFound) as refusal:
        await selector.choose({"model": "org/sqi"}, selector.everything)
    assert refusal.value.nearest == ("org/sql",)


@pytest.mark.parametrize("version", ["3", "canary", "sha256:00000000"])
async def test_an_unknown_version_comes_with_those_there_are(
    selector: Selector, two: tuple[VersionRecord, VersionRecord], version: str
) -> None:
    with pytest.raises(VersionNotFound) as refusal:
        await selector.choose({"model": f"org/sql@{version}"}, selector.everything)
    assert {"1", "2", "stable", "latest"} <= set(refusal.value.nearest)


async def test_a_removed_version_is_unknown(
    selector: Selector, two: tuple[VersionRecord, VersionRecord], store: Store
) -> None:
    store.remove("org/sql", 2)
    assert (await selector.choose({"model": "org/sql"}, selector.everything)).model == "org/sql@1"
    with pytest.raises(VersionNotFound):
        await selector.choose({"model": "org/sql@2"}, selector.everything)


async def test_a_rank_over_the_limit_comes_with_both_numbers(selector: Selector, publish: Publish) -> None:
    publish("fits", rank=MAX_RANK)
    publish("too-large", rank=MAX_RANK + 1)
    assert (await selector.choose({"model": "fits"}, selector.everything)).model == "fits@1"
    with pytest.raises(RankTooHigh, match="rank 17; this server serves up to 16"):
        await selector.choose({"model": "too-large"}, selector.everything)


async def test_an_adapter_of_another_base(selector: Selector, publish: Publish) -> None:
    publish("foreign", base=OTHER_BASE)
    with pytest.raises(BaseMismatch, match="was published for the base"):
        await selector.choose({"model": "foreign"}, selector.everything)


async def test_the_base_in_another_case_is_no_base(selector: Selector) -> None:
    with pytest.raises(AdapterNotFound):
        await selector.choose({"model": BASE.upper()}, selector.everything)


def test_resolving_without_a_request(selector: Selector, two: tuple[VersionRecord, VersionRecord]) -> None:
    assert selector.resolve(parse_adapter("org/sql@stable"), selector.everything) == two[0]


async def test_who_asks_again_is_answered_without_a_look_until_this_process_changes_something(
    store: Store, served_base: ServedBase, two: tuple[VersionRecord, VersionRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    still = Recent(lambda: store.changes, lambda: 0.0)
    selector = Selector(store, [BASE], served_base, Limit(MAX_RANK), recent=still)
    looks: list[Adapter] = []
    resolve = store.resolve

    def noted(adapter: Adapter) -> VersionRecord:
        looks.append(adapter)
        return resolve(adapter)

    monkeypatch.setattr(store, "resolve", noted)
    for _ in range(2):
        assert (await selector.choose({"model": "org/sql@stable"}, selector.everything)).model == "org/sql@1"
    assert len(looks) == 1
    store.tag("org/sql", "stable", 2)
    assert (await selector.choose({"model": "org/sql@stable"}, selector.everything)).model == "org/sql@2"


async def test_what_one_key_has_found_is_not_given_to_another(
    selector: Selector, store: Store, two: tuple[VersionRecord, VersionRecord]
) -> None:
    assert (await selector.choose({"model": "org/sql"}, selector.everything)).model == "org/sql@2"
    other = View(store, lambda: Access("b", Role.INFER, Patterns(("team-b/*",))))
    with pytest.raises(AdapterNotFound):
        await selector.choose({"model": "org/sql"}, other)


class RecordingStore(Store):
    """A store that notes in which thread it is asked."""

    asked: threading.Thread

    def resolve(self, adapter: Any) -> VersionRecord:
        self.asked = threading.current_thread()
        return super().resolve(adapter)


@pytest.mark.parametrize("url", ["{tmp}/store", "memory://selection"])
async def test_a_store_is_asked_in_a_thread_since_any_disk_may_hang(tmp_path: Path, url: str) -> None:
    store = RecordingStore.open(url.format(tmp=tmp_path), cache=tmp_path / "cache")
    assert isinstance(store, RecordingStore)
    if store.local:
        store.publish(small_adapter(tmp_path / "sql"), "sql", base=SERVED)
    selector = Selector(store, [BASE], ServedBase(BASE, SERVED, store), Limit(MAX_RANK))
    try:
        await selector.choose({"model": "sql"}, selector.everything)
    except AdapterNotFound:
        assert not store.local
    assert store.asked is not threading.main_thread()


@pytest.mark.parametrize("method", ["", "svd(rank=8):", "lorahub:"])
async def test_a_mixture_of_ranks_that_would_take_hours(selector: Selector, publish: Publish, method: str) -> None:
    for name, rank in (("x", MOST_RANKS // 2), ("y", MOST_RANKS // 2), ("z", 1)):
        publish(name, rank=rank)
    with pytest.raises(
        InvalidMixture, match=f"add up to {MOST_RANKS + 1:,}, and this server mixes up to {MOST_RANKS:,}: mix fewer"
    ):
        await selector.choose({"model": f"{method}x+y+z"}, selector.everything)
    chosen = await selector.choose({"model": f"{method}x+y"}, selector.everything)
    assert chosen.model == f"{method}1*x@1+1*y@1"
