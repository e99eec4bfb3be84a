"""When the factors of a layer are taken from vLLM's slots."""

from collections.abc import Sequence

import pytest
import torch

from loraloom.server.kernels.factors import LayerFactors, SlotFactors, Writes, columns_of
from loraloom.server.kernels.grouping import Groups
from tests.server.kernels.slots import Slots

SLOTS = 3


class Takings(LayerFactors):
    """A layer that notes what is taken."""

    def __init__(self, a: Sequence[torch.Tensor], b: Sequence[torch.Tensor], widths: Sequence[int]) -> None:
        super().__init__(a, b)
        self.first = a[0]
        self.taken: list[int] = []

    def _take(self, slot: int) -> bool:
        self.taken.append(slot)
        return bool(self.first[slot].any())

    def add(self, y: torch.Tensor, x: torch.Tensor, groups: Groups, scale: float) -> None:
        raise NotImplementedError


class Model:
    """One layer, with adapters 10, 11 and 12 in its slots, all taken."""

    def __init__(self, ids: Sequence[int | None] = (10, 11, 12)) -> None:
        self.slots = Slots.empty(SLOTS, 8, 5, (4, 2))
        self.writes = Writes()
        self.factors = SlotFactors(Takings, self.writes)
        for slot in range(SLOTS):
            self.slots.fill(slot, piece=0, rank=2)
        self.writes.note(ids)
        self.step()

    def step(self) -> list[int]:
        """Use all slots; returns those that were taken for it."""
        layer = self.factors.layer(self.slots.a, self.slots.b, self.slots.widths)
        assert isinstance(layer, Takings)
        layer.taken.clear()
        layer.holds(range(SLOTS))
        return sorted(layer.taken)


def test_nothing_is_taken_again_while_slots_stay_as_they_are() -> None:
    model = Model()
    model.writes.note((10, 11, 12))
    assert model.step() == []


def test_only_the_slot_that_another_adapter_got_is_taken_again() -> None:
    model = Model()
    model.slots.fill(1, piece=0, rank=5)
    model.writes.note((10, 13, 12))
    assert model.step() == [1]
    assert model.step() == []


def test_a_layer_that_missed_some_steps_catches_up() -> None:
    model = Model()
    model.slots.fill(1, piece=0, rank=5)
    model.writes.note((10, 13, 12))
    model.slots.fill(2, piece=0, rank=7)
    model.writes.note((10, 13, 14))
    model.writes.note((10, 13, 14))
    assert model.step() == [1, 2]


def test_a_slot_written_without_another_adapter_makes_all_be_taken_again() -> None:
    model = Model()
    with torch.inference_mode():  # as in the engine's step
        model.slots.b[0][1] = 3
    assert model.step() == [0, 1, 2]


def test_the_ids_of_a_warm_up_may_come_again_with_other_weights() -> None:
    model = Model(ids=(1, 2, 3))
    model.slots.fill(0, piece=0, rank=6)
    model.slots.fill(2, piece=0, rank=4)
    model.writes.note((1, 2, 4))
    assert model.step() == [0, 1, 2]


def test_an_emptied_slot_is_taken_again() -> None:
    model = Model()
    model.slots.a[0][1] = 0
    model.writes.note((10, None, 12))
    assert model.step() == [1]


def test_a_layer_tells_whether_any_of_some_slots_has_updates() -> None:
    slots = Slots.empty(SLOTS, 8, 5, (4,))
    slots.fill(1, piece=0, rank=2)
    layer = SlotFactors(Takings, Writes()).layer(slots.a, slots.b, slots.widths)
    assert layer.holds((0, 1))
    assert not layer.holds((0, 2))
    assert not layer.holds(())


def test_layers_do_not_share_what_was_taken() -> None:
    factors, (one, other) = SlotFactors(Takings, Writes()), (Slots.empty(SLOTS, 8, 5, (4,)) for _ in range(2))
    one.fill(0, piece=0, rank=2)
    assert factors.layer(one.a, one.b, one.widths).holds((0,))
    assert not factors.layer(other.a, other.b, other.widths).holds((0,))
    assert factors.layer(one.a, one.b, one.widths) is factors.layer(one.a, one.b, one.widths)


def test_slots_made_in_inference_mode_are_taken_every_time() -> None:
    factors = SlotFactors(Takings, Writes())
    with torch.inference_mode():
        slots = Slots.empty(SLOTS, 8, 5, (4,))
        assert not factors.layer(slots.a, slots.b, slots.widths).holds((0,))
        slots.fill(0, piece=0, rank=5)
        assert factors.layer(slots.a, slots.b, slots.widths).holds((0,))


@pytest.mark.parametrize(("widths", "columns"), [((), []), ((4, 2), [slice(0, 4), slice(4, 6)])])
def test_columns_lie_side_by_side(widths: tuple[int, ...], columns: list[slice]) -> None:
    assert columns_of(widths) == columns
