"""Times in buckets."""

from loraloom.server.observe.histogram import Histogram


def test_a_time_is_in_the_first_bucket_that_it_does_not_exceed() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 2.0):
        histogram.add(seconds)
    histogram.add(0.2, times=3)
    assert histogram.counts == [2, 4, 1]
    assert (histogram.count, round(histogram.total, 6)) == (7, 3.25)
    assert histogram.cumulative() == [("0.1", 2.0), ("1.0", 6.0), ("+Inf", 7.0)]


def test_merging_adds_and_a_copy_stays_as_it_is() -> None:
    one, other = Histogram((1.0,)), Histogram((1.0,))
    one.add(0.5)
    other.add(3)
    before = one.copy()
    one.merge(other)
    assert (one.counts, one.total) == ([1, 1], 3.5)
    assert (before.counts, before.total) == ([1, 0], 0.5)
