"""What hides one name in a list, and how that is told."""

import pytest

from loraloom.adapters.errors import AdapterNotFound, DamagedRecord, StoreError
from loraloom.server.routes.listing import passing_over


def test_a_damaged_name_is_passed_over_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("sql", "sql", "date"):
        with passing_over(name):
            raise DamagedRecord(f"names/{name}", "/store", "it is no JSON")
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "'sql'" in caplog.text
    assert "'date'" in caplog.text


def test_one_that_has_gone_is_nothing_to_tell(caplog: pytest.LogCaptureFixture) -> None:
    with passing_over("sql"):
        raise AdapterNotFound("sql")
    assert caplog.records == []


def test_a_store_that_cannot_be_read_is_no_matter_of_one_name() -> None:
    with pytest.raises(StoreError), passing_over("sql"):
        raise StoreError("gone")
