import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loraloom.server.kernels.grouping import ROWS_PER_RUN, Groups, Segment

SLOTS = st.lists(st.integers(-1, 5), max_size=80)


def slots_by_row(groups: Groups) -> list[int]:
    """What the groups say of each row, written out."""
    by_slot = groups.by_slot
    order = range(groups.rows) if by_slot.order is None else by_slot.order.tolist()
    slots = [-1] * groups.rows
    for segment in by_slot.segments:
        for place in range(segment.start, segment.stop):
            assert slots[order[place]] == -1, "a row is in two segments"
            slots[order[place]] = segment.slot
    return slots


@given(SLOTS)
def test_every_row_is_in_the_segment_of_its_slot(slots: list[int]) -> None:
    assert slots_by_row(Groups(torch.tensor(slots, dtype=torch.long))) == slots


@given(st.lists(st.tuples(st.integers(-1, 5), st.integers(1, 60)), max_size=12))
def test_few_long_runs_stay_where_they_are_and_many_short_ones_are_sorted(runs: list[tuple[int, int]]) -> None:
    slots = [slot for slot, length in runs for _ in range(length)]
    groups = Groups(torch.tensor(slots, dtype=torch.long))
    assert slots_by_row(groups) == slots
    used = {slot for slot in slots if slot >= 0}
    if groups.by_slot.order is None:
        assert (len(groups.by_slot.segments) - len(used)) * ROWS_PER_RUN <= sum(slot >= 0 for slot in slots)
    else:
        assert sorted(segment.slot for segment in groups.by_slot.segments) == sorted(used)


def test_requests_that_lie_together_are_not_moved() -> None:
    groups = Groups(torch.tensor([2, 2, -1, 0, 0, 0]))
    assert groups.by_slot.order is None
    assert groups.by_slot.segments == (Segment(2, 0, 2), Segment(0, 3, 6))


def test_alternating_rows_are_sorted_once_and_keep_their_order_within_a_slot() -> None:
    groups = Groups(torch.tensor([1, 0, -1, 1, 0]))
    assert groups.by_slot.order is not None
    assert groups.by_slot.order.tolist() == [1, 4, 0, 3]
    assert groups.by_slot.segments == (Segment(0, 0, 2), Segment(1, 2, 4))


@pytest.mark.parametrize("slots", [[], [-1, -1, -1]])
def test_a_step_without_adapters_has_no_segments_whatever_its_rows(slots: list[int]) -> None:
    groups = Groups(torch.tensor(slots, dtype=torch.long))
    assert groups.by_slot.segments == ()
    spread = groups.spread(7)
    assert spread is not None
    assert (spread.rows, spread.used) == (7, ())


@pytest.mark.parametrize("rows", [1, 3, 9])
def test_one_slot_for_all_rows_holds_for_any_number_of_them(rows: int) -> None:
    spread = Groups(torch.tensor([4, 4, 4])).spread(rows)
    assert spread is not None
    assert spread.slots.tolist() == [4] * rows


@pytest.mark.parametrize("slots", [[4, 4, -1], [4, 4, 5], [0, 1] * 20])
def test_rows_of_several_adapters_cannot_be_spread(slots: list[int]) -> None:
    assert Groups(torch.tensor(slots)).spread(2) is None
