"""What only the server may say to the engine."""

from dataclasses import replace
from typing import Any

import pytest

from loraloom.server.access.access import ANYONE, Access, Role
from loraloom.server.errors import HeaderRefused, InvalidBody, NotServed
from loraloom.server.gate.exchange import Choice, Exchange
from loraloom.server.gate.privileges import (
    DROPPED_FIELDS,
    DROPPED_HEADERS,
    can_wait,
    check_fields,
    check_selectors,
    for_the_engine,
    without_privileges,
)
from loraloom.server.observe.account import Account

A, B = Access("a", Role.INFER), Access("b", Role.INFER)
SQL = Choice("sql@4")


def sent(body: dict[str, Any], access: Access = ANYONE, share_cache: bool = False) -> dict[str, Any]:
    return for_the_engine(body, SQL, access, share_cache=share_cache)


def salt(access: Access, given: str | None = None, share_cache: bool = False) -> str | None:
    return sent({} if given is None else {"cache_salt": given}, access, share_cache).get("cache_salt")


def test_the_engine_gets_the_canonical_name_and_no_field_of_ours() -> None:
    body = {"model": "sql", "adapter": 1, "adapter_id": 2, "merged_adapters": 3, "adapter_source": 4, "prompt": "x"}
    assert sent(body) == {"model": "sql@4", "prompt": "x"}
    assert len(body) == 6


def test_what_would_tell_the_engine_how_to_treat_a_request_does_not_reach_it() -> None:
    body = {field: 1 for field in DROPPED_FIELDS} | {"cache_salt": None, "temperature": 0.5}
    assert sent(body) == {"model": "sql@4", "temperature": 0.5}


def test_a_clients_headers_do_not_carry_its_key_or_its_wishes_and_the_id_is_ours() -> None:
    headers = [(name, b"client") for name in DROPPED_HEADERS] + [(b"traceparent", b"00-1"), (b"accept", b"*/*")]
    scope = {"type": "http", "headers": headers}
    assert without_privileges(scope, "r1")["headers"] == [
        (b"traceparent", b"00-1"),
        (b"accept", b"*/*"),
        (b"x-request-id", b"r1"),
    ]
    assert len(scope["headers"]) == len(headers)


async def test_a_header_that_selects_behind_the_gate_is_refused() -> None:
    async def nothing(*_: object) -> Any: ...

    headers = [(b"x-amzn-sagemaker-adapter-identifier", b"other/sql")]
    with pytest.raises(HeaderRefused, match="`model`"):
        check_selectors(Exchange({"headers": headers}, nothing, nothing, Account("r1")))


def test_no_salt_leads_into_the_blocks_of_another_key() -> None:
    salts = [salt(A), salt(B), salt(A, "x"), salt(B, "x"), salt(A, "b"), salt(A, "\0b"), salt(B, str(salt(A)))]
    assert None not in salts
    assert len(set(salts)) == len(salts)
    assert salt(A, "x") == salt(A, "x")
    assert all(len(str(each)) <= 128 for each in salts)


def test_keys_share_the_cache_where_the_server_says_so_but_for_what_a_client_sets_apart() -> None:
    assert salt(A, share_cache=True) is None
    assert salt(A, "x", share_cache=True) == salt(B, "x", share_cache=True) != salt(A, "y", share_cache=True)


def test_without_keys_nothing_is_set_apart() -> None:
    assert salt(ANYONE) is None
    assert salt(ANYONE, "x") is not None


def test_a_lone_surrogate_in_a_salt_is_a_salt() -> None:
    assert salt(A, "\ud800") != salt(A, "\ud801")


def test_a_job_comes_last_and_so_does_who_says_that_it_can_wait() -> None:
    job = A.for_a_job(["sql"])
    assert can_wait({}, job)
    assert can_wait({"service_tier": "flex"}, A)
    assert not can_wait({"service_tier": "auto"}, A)
    assert sent({"priority": -5}, job)["priority"] == 100
    assert "priority" not in sent({"priority": -5}, A)


@pytest.mark.parametrize("value", [1, ["x"], {"a": 1}, True])
def test_a_salt_is_text(value: object) -> None:
    with pytest.raises(InvalidBody, match="cache_salt"):
        check_fields({"cache_salt": value}, A)


def test_answers_of_others_cannot_be_continued() -> None:
    check_fields({"previous_response_id": "resp_1"}, ANYONE)
    with pytest.raises(NotServed, match="`input`"):
        check_fields({"previous_response_id": "resp_1"}, A)


def test_nothing_runs_in_the_background() -> None:
    with pytest.raises(NotServed, match="background"):
        check_fields({"background": True}, ANYONE)


def test_there_is_no_second_way_to_what_is_dropped() -> None:
    given = {"vllm_xargs": {"kv_transfer_params": "x", "kv_cache_report_mode": "y", "mine": 1}}
    assert sent(given)["vllm_xargs"] == {"mine": 1}
    assert sent({"vllm_xargs": "none"})["vllm_xargs"] == "none"


def test_beams_cannot_wait() -> None:
    check_fields({"use_beam_search": True}, A)
    for body, access in (({"service_tier": "flex"}, A), ({}, A.for_a_job(["sql"]))):
        with pytest.raises(NotServed, match="beam search"):
            check_fields({"use_beam_search": True, **body}, access)


def test_a_key_that_gets_the_name_of_another_does_not_get_its_cache() -> None:
    assert salt(replace(A, since="2026")) != salt(replace(A, since="2027"))
