from loraloom.compose.report.provenance import columns, records, rows, text_of
from tests.compose.report.found import POOL, result_of

PROVENANCE = result_of().provenance


def test_facts_are_named_by_their_path() -> None:
    facts = dict(rows(PROVENANCE))
    assert facts["base"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert facts["optimizer name"] == "CMA"
    assert facts["examples held out"] == "20"
    assert facts["optimizer bounds"] == "-1.5, 1.5"
    assert facts["preselect"] == "none"
    assert "pool" not in facts


def test_lists_of_records_are_tables() -> None:
    tables = records(PROVENANCE)
    assert list(tables) == ["pool"]
    assert [record["adapter"] for record in tables["pool"]] == list(POOL)
    assert columns(tables["pool"]) == ["adapter", "digest", "rank"]


def test_records_may_differ_in_their_fields() -> None:
    assert columns([{"a": 1}, {"b": 2, "a": 3}]) == ["a", "b"]


def test_values_are_written_as_people_do() -> None:
    assert [text_of(each) for each in (None, True, False, 0, [1, "a"], [])] == ["none", "yes", "no", "0", "1, a", ""]


def test_an_empty_list_is_no_table() -> None:
    assert records({"pool": []}) == {}
    assert rows({"pool": []}) == [("pool", "")]
