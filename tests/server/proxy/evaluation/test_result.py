"""`result.json`."""

import json

from tests.server.proxy.evaluation.described import found, plan_of


def test_it_is_json_that_says_what_is_optimistic() -> None:
    result = found(plan_of())
    value = json.loads(result.text())
    assert value["complete"] is True
    assert value["tasks"]["date"]["large"]["accuracy"]["value"] == result.tasks["date"]["large"].accuracy.value
    assert result.gap is not None
    assert value["gap"]["headline"]["share"] == result.gap.headline.share
    assert value["about"]["spec"]["small"] == "org/small"
    assert "optimistic" in value["remark"]
