"""A gate put together from settings does what they say."""

from pathlib import Path

import pytest

from loraloom.adapters.errors import InvalidMixture
from loraloom.adapters.names import parse
from loraloom.server.errors import RankTooHigh
from tests.server.conftest import CAPACITY, MAX_RANK, BuildGate, Publish


def test_the_limits_are_those_of_the_settings_and_of_the_engine(build_gate: BuildGate, publish: Publish) -> None:
    gate = build_gate(max_mixture_terms=2)
    publish("fits", rank=MAX_RANK)
    publish("large", rank=MAX_RANK + 1)
    assert gate.selector.settle(parse("fits")).model == "fits@1"
    with pytest.raises(RankTooHigh):
        gate.selector.settle(parse("large"))
    with pytest.raises(InvalidMixture, match="up to 2"):
        gate.selector.settle(parse("fits+2*fits+3*fits"))
    assert gate.leases.most_pinned == CAPACITY - 1


async def test_everything_for_a_while_lies_in_one_folder_of_this_process(
    build_gate: BuildGate, publish: Publish, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        publish(name)
    gate = build_gate()
    choice = gate.selector.settle(parse("a+b"))
    assert choice.content is not None
    async with gate.mixtures.kept(choice.content), gate.leases.hold(choice.model, choice.content) as folder:
        assert folder.is_relative_to(gate.scratch.folder)
        assert gate.scratch.folder.is_relative_to(tmp_path / "cache")
    gate.scratch.close()
    assert not folder.exists()
