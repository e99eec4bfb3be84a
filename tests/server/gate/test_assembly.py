"""A gate put together from settings does what they say."""

from pathlib import Path

import pytest

from loraloom.adapters.errors import InvalidMixture
from loraloom.adapters.manifest import read_manifest
from loraloom.adapters.names import parse
from loraloom.adapters.store import Store
from loraloom.server.access.keyring import KeyRing
from loraloom.server.access.records import Terms
from loraloom.server.admission.rules import Rules
from loraloom.server.base import ServedPair
from loraloom.server.errors import InvalidAlpha, RankTooHigh
from loraloom.server.gate.effects import FACT
from loraloom.server.gate.gate import Gate
from tests.server.conftest import CAPACITY, MAX_RANK, BuildGate, Publish
from tests.server.fakes import FakeEngine


def test_the_limits_are_those_of_the_settings_and_of_the_engine(build_gate: BuildGate, publish: Publish) -> None:
    gate = build_gate(max_mixture_terms=2)
    publish("fits", rank=MAX_RANK)
    publish("large", rank=MAX_RANK + 1)
    assert gate.selector.settle_own(parse("fits")).model == "fits@1"
    with pytest.raises(RankTooHigh):
        gate.selector.settle_own(parse("large"))
    with pytest.raises(InvalidMixture, match="up to 2"):
        gate.selector.settle_own(parse("fits+2*fits+3*fits"))
    assert gate.leases.most_pinned == CAPACITY - 1


async def test_everything_for_a_while_lies_in_one_folder_of_this_process(
    build_gate: BuildGate, publish: Publish, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        publish(name)
    gate = build_gate()
    choice = gate.selector.settle_own(parse("a+b"))
    assert choice.content is not None
    async with gate.mixtures.kept(choice.content), gate.leases.hold(choice.model, choice.content) as folder:
        assert folder.is_relative_to(gate.scratch.folder)
        assert gate.scratch.folder.is_relative_to(tmp_path / "cache")
    gate.scratch.close()
    assert not folder.exists()


async def test_a_pair_is_served_by_variants(
    build_gate: BuildGate, served_pair: ServedPair, publish_small: Publish
) -> None:
    publish_small("sql")
    fields = {"proxy_small": "/models/tinier", "proxy_alpha": 0.5, "proxy_max_alpha": 2.0}
    gate = build_gate(served_pair, **fields)
    choice = gate.selector.settle_own(parse("sql"))
    assert choice.model == "sql@1~0.5"
    assert choice.content is not None
    async with gate.mixtures.kept(choice.content), gate.leases.hold(choice.model, choice.content) as folder:
        assert set(read_manifest(folder).modules) == {"expert.model.layers.0.self_attn.q_proj", "proxy_alpha"}
    with pytest.raises(InvalidAlpha, match="from -2 to 2"):
        gate.selector.settle_own(parse("sql~3"))
    with pytest.raises(InvalidAlpha, match="needs an adapter"):
        gate.selector.settle_own(parse("tiny~0"))
    own_expert = build_gate(served_pair, **fields, proxy_expert="/models/tuned")
    assert own_expert.selector.settle_own(parse("tiny~0")).model == "tiny~0"


async def test_the_effect_of_an_adapter_that_steers_is_measured_with_its_strength(
    pair_gate: Gate, publish_small: Publish, engine: FakeEngine, store: Store
) -> None:
    record = publish_small("sql")
    pair_gate.effects.measure(record)
    await pair_gate.effects.idle()
    assert engine.loads == ["sql@1~1"]
    assert FACT in store.facts(record.digest)


@pytest.mark.parametrize(("keys", "reserve", "of_a_key"), [(True, 8, 25), (False, 0, 100)])
def test_only_where_there_are_keys_something_is_held_back_for_others(
    build_gate: BuildGate, store: Store, keys: bool, reserve: int, of_a_key: int
) -> None:
    if keys:
        KeyRing(store).create("team", Terms(adapters=("*",)))
    gate = build_gate(max_waiting=100, queue_timeout=7, cold_wait=3)
    assert gate.admission.rules == Rules(64, 64, reserve, patience=7, hold=3, most_waiting=100, most_of_a_key=of_a_key)
