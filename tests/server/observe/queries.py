"""The queries of the board and of the rules, held against what a scrape has: names, labels, and values of labels."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, get_args

import promql_parser as promql
import yaml
from prometheus_client.parser import text_string_to_metric_families

from loraloom.server.gate.statuses import STATUSES
from loraloom.server.observe.account import Ending
from loraloom.server.observe.events import Stage

DEPLOY = Path(__file__).parents[3] / "deploy"
BOARD = DEPLOY / "grafana/loraloom.json"
RULES = DEPLOY / "prometheus"

Known: TypeAlias = Mapping[str, frozenset[str]]
"""The labels of each name that can be asked for."""

TARGET = frozenset({"job", "instance"})
"""Labels that Prometheus itself adds to everything that it scrapes."""
VALUES = {
    "ending": set(get_args(Ending)),
    "stage": set(get_args(Stage)),
    "found": {"memory", "disk"},
    "background": {"true", "false"},
    "code": {status.code for status in STATUSES.values()},
}
"""What labels of ours can say."""
VARIABLES = {"$__rate_interval": "5m", "$__range": "1h", "$instance": ".*", "$key": ".*", "$adapter": ".*"}
"""What Grafana puts in before it asks."""


def known_from(scrape: str) -> dict[str, frozenset[str]]:
    """What can be asked for, by the text of a scrape."""
    known: dict[str, frozenset[str]] = {"up": TARGET}
    for family in text_string_to_metric_families(scrape):
        for sample in family.samples:
            known[sample.name] = known.get(sample.name, TARGET) | sample.labels.keys()
    return known


def with_recorded(known: Known) -> dict[str, frozenset[str]]:
    """The same, and what the recording rules make of it."""
    found = dict(known)
    for rule in rules("recording.yml"):
        found[rule["record"]] = _labels(promql.parse(rule["expr"]), known)
    return found


def rules(file: str) -> list[dict[str, Any]]:
    """The rules in a file."""
    return [rule for group in yaml.safe_load((RULES / file).read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """The board's panels, without the rows between them."""
    return [panel for panel in json.loads(BOARD.read_text())["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Every query, and where it is from."""
    for file in ("recording.yml", "alerts.yml"):
        for rule in rules(file):
            yield rule.get("record") or rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in json.loads(BOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            query = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert query, variable["definition"]
            yield variable["name"], f"count by ({query[2]}) ({query[1]})"


def problems(query: str, known: Known) -> list[str]:
    """What is wrong with a query; raises ValueError where it is none."""
    found: list[str] = []
    promql.walk(_parsed(query), lambda node: found.extend(_problems_of(node, known)))
    return found


def names_in(query: str) -> set[str]:
    """Which names a query asks for."""
    return {selector.name or "" for selector in _selectors(_parsed(query))}


def _parsed(query: str) -> promql.Expr:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    parsed: promql.Expr = promql.parse(query)
    return parsed


def _selectors(expression: promql.Expr) -> list[promql.VectorSelector]:
    found: list[promql.VectorSelector] = []
    promql.walk(expression, lambda node: found.append(node) if isinstance(node, promql.VectorSelector) else None)
    return found


def _problems_of(node: promql.Expr, known: Known) -> list[str]:
    if isinstance(node, promql.VectorSelector):
        return _problems_of_selector(node, known)
    if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
        return [
            f"nothing here has a label {name}" for name in sorted({*node.modifier.labels} - _labels(node.expr, known))
        ]
    if isinstance(node, promql.Call) and node.func.name == "histogram_quantile":
        return [] if "le" in _labels(node.args[1], known) else ["a quantile needs the label le"]
    return []


def _problems_of_selector(selector: promql.VectorSelector, known: Known) -> list[str]:
    if selector.name not in known:
        return [f"there is no {selector.name}"]
    found = []
    for matcher in selector.matchers.matchers:
        if matcher.name not in known[selector.name]:
            found.append(f"{selector.name} has no label {matcher.name}")
        if matcher.op == promql.MatchOp.Equal and matcher.value not in VALUES.get(matcher.name, {matcher.value}):
            found.append(f"{matcher.name} is never {matcher.value}")
    return found


def _labels(expression: Any, known: Known) -> frozenset[str]:
    """The labels that the result can have."""
    if isinstance(expression, promql.AggregateExpr):
        by = frozenset(expression.modifier.labels) if expression.modifier else frozenset()
        if expression.modifier is None or expression.modifier.type == promql.AggModifierType.By:
            return by
        return _labels(expression.expr, known) - by
    if isinstance(expression, promql.VectorSelector):
        return known.get(expression.name or "", frozenset())
    parts = [getattr(expression, name, None) for name in ("lhs", "rhs", "expr", "vector_selector")]
    parts += getattr(expression, "args", [])
    found = frozenset[str]().union(*(_labels(part, known) for part in parts if part is not None))
    quantile = isinstance(expression, promql.Call) and expression.func.name == "histogram_quantile"
    return found - {"le"} if quantile else found
