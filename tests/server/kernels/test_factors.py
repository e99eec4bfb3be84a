from pathlib import Path

import pytest
import torch

from loraloom.server.kernels.factors import SlotFactors
from loraloom.server.kernels.native import Kernel

SLOTS, MAX_RANK, INPUT, WIDTHS = 3, 8, 5, (4, 2)


def stacked_zeros() -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """A layer's slots as vLLM makes them."""
    a = tuple(torch.zeros(SLOTS, 1, MAX_RANK, INPUT) for _ in WIDTHS)
    b = tuple(torch.zeros(SLOTS, 1, width, MAX_RANK) for width in WIDTHS)
    return a, b


def fill(stacked: tuple[torch.Tensor, ...], slot: int, piece: int, rank: int) -> torch.Tensor:
    stacked[piece][slot] = 0
    values = torch.rand(rank, INPUT) + 1
    stacked[piece][slot, 0, :rank].copy_(values)
    return values


def test_an_empty_slot_has_no_updates() -> None:
    a, b = stacked_zeros()
    assert SlotFactors().layer(a, b, WIDTHS).of(1) == ()


def test_updates_are_trimmed_to_the_rank_in_use_and_skip_slices_left_alone() -> None:
    a, b = stacked_zeros()
    values = fill(a, slot=2, piece=1, rank=3)
    (update,) = SlotFactors().layer(a, b, WIDTHS).of(2)
    assert update.columns == slice(4, 6)
    assert torch.equal(update.a, values)
    assert update.b.shape == (3, 2)


def test_a_zero_row_below_the_rank_does_not_cut_it() -> None:
    a, b = stacked_zeros()
    fill(a, slot=0, piece=0, rank=4)
    a[0][0, 0, 1:3] = 0
    (update,) = SlotFactors().layer(a, b, WIDTHS).of(0)
    assert update.a.shape == (4, INPUT)


def test_nan_counts_as_in_use() -> None:
    a, b = stacked_zeros()
    a[0][0, 0, 5, 0] = float("nan")
    (update,) = SlotFactors().layer(a, b, WIDTHS).of(0)
    assert update.a.shape == (6, INPUT)


def test_a_slot_written_again_is_looked_at_again() -> None:
    a, b = stacked_zeros()
    factors = SlotFactors()
    fill(a, slot=1, piece=0, rank=2)
    assert factors.layer(a, b, WIDTHS).of(1)[0].a.shape == (2, INPUT)
    with torch.inference_mode():  # as in the engine's step
        fill(a, slot=1, piece=0, rank=7)
    assert factors.layer(a, b, WIDTHS).of(1)[0].a.shape == (7, INPUT)
    a[0][1] = 0
    assert factors.layer(a, b, WIDTHS).of(1) == ()


def test_nothing_is_searched_again_while_slots_stay_as_they_are() -> None:
    a, b = stacked_zeros()
    factors = SlotFactors()
    fill(a, slot=1, piece=0, rank=2)
    assert factors.layer(a, b, WIDTHS).of(1)[0] is factors.layer(a, b, WIDTHS).of(1)[0]


def test_b_alone_written_again_is_looked_at_again() -> None:
    a, b = stacked_zeros()
    factors = SlotFactors()
    fill(a, slot=1, piece=0, rank=2)
    assert not factors.layer(a, b, WIDTHS).of(1)[0].b.any()
    b[0][1] = 3
    assert torch.equal(factors.layer(a, b, WIDTHS).of(1)[0].b, torch.full((2, 4), 3.0))


def test_torch_gets_float32() -> None:
    a, b = (tuple(each.bfloat16() for each in stacked) for stacked in stacked_zeros())
    fill(a, slot=1, piece=1, rank=2)
    (update,) = SlotFactors().layer(a, b, WIDTHS).of(1)
    assert (update.a.dtype, update.b.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_kernel_gets_rows_of_the_slots_own_dtype(library: Path, dtype: torch.dtype) -> None:
    a, b = (tuple(each.to(dtype) for each in stacked) for stacked in stacked_zeros())
    fill(a, slot=1, piece=0, rank=3)
    b[0][1] = torch.randn(4, MAX_RANK).to(dtype)
    (update,) = SlotFactors(Kernel(library)).layer(a, b, WIDTHS).of(1)
    assert torch.equal(update.a, a[0][1, 0, :3])
    assert torch.equal(update.b, b[0][1, 0, :, :3].t())
    assert update.a.is_contiguous()
    assert update.b.is_contiguous()


def filled() -> tuple[SlotFactors, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Factors of adapters 10, 11 and 12 in the slots, all found."""
    a, b = stacked_zeros()
    factors = SlotFactors()
    for slot in range(SLOTS):
        fill(a, slot, piece=0, rank=2)
    factors.writes.note((10, 11, 12))
    factors.layer(a, b, WIDTHS).holds(range(SLOTS))
    return factors, a, b


def test_only_the_slot_that_another_adapter_got_is_looked_at_again() -> None:
    factors, a, b = filled()
    before = [factors.layer(a, b, WIDTHS).of(slot)[0] for slot in range(SLOTS)]
    fill(a, slot=1, piece=0, rank=5)
    factors.writes.note((10, 13, 12))
    after = [factors.layer(a, b, WIDTHS).of(slot)[0] for slot in range(SLOTS)]
    assert [new is old for new, old in zip(after, before, strict=True)] == [True, False, True]
    assert len(after[1].a) == 5


def test_a_layer_that_missed_some_steps_catches_up() -> None:
    factors, a, b = filled()
    fill(a, slot=1, piece=0, rank=5)
    factors.writes.note((10, 13, 12))
    fill(a, slot=2, piece=0, rank=7)
    factors.writes.note((10, 13, 14))
    factors.writes.note((10, 13, 14))
    assert [len(factors.layer(a, b, WIDTHS).of(slot)[0].a) for slot in range(SLOTS)] == [2, 5, 7]


def test_the_ids_of_a_warm_up_may_come_again_with_other_weights() -> None:
    a, b = stacked_zeros()
    factors = SlotFactors()
    fill(a, slot=0, piece=0, rank=2)
    factors.writes.note((1, 2, 3))
    factors.layer(a, b, WIDTHS).holds(range(SLOTS))
    fill(a, slot=0, piece=0, rank=6)
    fill(a, slot=2, piece=0, rank=4)
    factors.writes.note((1, 2, 4))
    layer = factors.layer(a, b, WIDTHS)
    assert (len(layer.of(0)[0].a), len(layer.of(2)[0].a)) == (6, 4)


def test_an_emptied_slot_is_looked_at_again() -> None:
    factors, a, b = filled()
    a[0][1] = 0
    factors.writes.note((10, None, 12))
    assert factors.layer(a, b, WIDTHS).of(1) == ()


def test_a_layer_tells_whether_any_of_some_slots_has_updates() -> None:
    a, b = stacked_zeros()
    fill(a, slot=1, piece=0, rank=2)
    layer = SlotFactors().layer(a, b, WIDTHS)
    assert layer.holds((0, 1))
    assert not layer.holds((0, 2))
    assert not layer.holds(())


def test_layers_do_not_share_what_is_known() -> None:
    a, b = stacked_zeros()
    other_a, other_b = stacked_zeros()
    fill(a, slot=0, piece=0, rank=2)
    factors = SlotFactors()
    assert factors.layer(other_a, other_b, WIDTHS).of(0) == ()
    assert len(factors.layer(a, b, WIDTHS).of(0)) == 1


def test_slots_made_in_inference_mode_are_looked_at_every_time() -> None:
    factors = SlotFactors()
    with torch.inference_mode():
        a, b = stacked_zeros()
        assert factors.layer(a, b, WIDTHS).of(0) == ()
        fill(a, slot=0, piece=0, rank=5)
        assert factors.layer(a, b, WIDTHS).of(0)[0].a.shape == (5, INPUT)
