from tests.bench.outcome import Goal, Table


def test_a_table_lines_its_columns_up() -> None:
    table = Table(("request", "us"), (("base", "5"), ("name@stable", "120")))
    assert str(table).splitlines() == [
        "request     |  us",
        "------------+----",
        "base        |   5",
        "name@stable | 120",
    ]


def test_a_goal_is_met_up_to_its_limit() -> None:
    assert Goal("us added", 300, 300).met
    assert not Goal("us added", 300, 300.5).met
    assert "MISSED" in str(Goal("us added", 300, 301))
