"""One request's account."""

from loraloom.server.observe.account import CURRENT, Account


def test_tokens_add_up_and_whoever_wants_to_is_told_of_each_part() -> None:
    account, told = Account("r1"), []
    account.spent.append(lambda prompt, output: told.append((prompt, output)))
    account.count(12, 1)
    account.count(0, 3)
    assert (account.prompt, account.output) == (12, 4)
    assert told == [(12, 1), (0, 3)]


def test_outside_of_a_request_there_is_no_account() -> None:
    assert CURRENT.get() is None
