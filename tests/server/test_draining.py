"""The word by which a server learns that it is about to stop."""

from loraloom.server import draining


def test_nothing_has_begun_and_the_word_fits_the_channel() -> None:
    assert not draining.BEGUN.is_set()
    assert len(draining.WORD) == 1
