"""One request's account."""

from loraloom.server.observe.account import CURRENT, Account, printable


def test_tokens_add_up_and_whoever_wants_to_is_told_of_each_part() -> None:
    account, told = Account("r1"), []
    account.spent.append(lambda prompt, output: told.append((prompt, output)))
    account.count(12, 1)
    account.count(0, 3)
    assert (account.prompt, account.output) == (12, 4)
    assert told == [(12, 1), (0, 3)]


def test_outside_of_a_request_there_is_no_account() -> None:
    assert CURRENT.get() is None


class Work:
    """A call of the engine that has not ended."""

    def __init__(self, account: Account) -> None:
        self.account = account
        account.calls.append(self)

    def settle(self) -> None:
        self.account.count(0, 7)
        self.account.calls.remove(self)


def test_settling_closes_every_call_once() -> None:
    account = Account("r1")
    Work(account), Work(account)
    account.searches.append((object(), [1] * 1000))
    account.settle()
    ended = account.ended
    account.settle()
    assert (account.output, account.calls, account.searches) == (14, [], [])
    assert ended is not None
    assert account.ended == ended
    assert account.seconds == ended - account.began


def test_the_queue_at_the_edge_is_from_when_the_request_was_complete_to_when_it_was_let_in() -> None:
    account = Account("r1", began=10.0)
    assert account.edge_queued is None
    account.admitted = 14.0
    assert account.edge_queued == 4.0
    account.queued = 12.0
    assert account.edge_queued == 2.0


def test_an_adapter_takes_from_the_requests_turn_until_it_is_in_memory() -> None:
    account = Account("r1", began=10.0)
    assert account.loading is None
    account.leased = 15.0
    assert account.loading == 5.0
    account.admitted = 14.0
    assert account.loading == 1.0


def test_what_a_client_calls_its_request_is_one_short_word() -> None:
    assert printable(b"job-7\r\nSet-Cookie: x\x00\xff") == "job-7Set-Cookie:x"
    assert len(printable(b"x" * 5000)) == 128
