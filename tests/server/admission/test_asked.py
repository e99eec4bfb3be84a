"""What a request asks of the queue."""

from loraloom.server.admission.asked import Asked


def test_jobs_of_a_key_stand_in_a_line_of_their_own() -> None:
    assert Asked("k").holder == Asked("k", "a@1").holder
    assert Asked("k").holder != Asked("k", background=True).holder
    assert Asked("k").holder != Asked("l").holder
