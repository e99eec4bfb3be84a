"""The text of a scrape, from fakes that one request has passed."""

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from loraloom.server.observe.events import Counted
from loraloom.server.observe.metrics import Traffic
from loraloom.server.observe.standing import Standing
from tests.server.observe.conftest import ended_request
from tests.server.observe.test_standing import SOURCES

KINDS: dict[str, Any] = {"_gauge_cls": Gauge, "_counter_cls": Counter, "_histogram_cls": Histogram}
"""vLLM's names for what its metrics are made with."""


def scrape() -> str:
    """LoraLoom's metrics after an answered request and a refused one, and vLLM's as its source declares them."""
    registry = CollectorRegistry()
    traffic = Traffic()
    registry.register(traffic)
    registry.register(Standing(SOURCES))
    ProcessCollector(registry=registry)
    Counted(registry)
    traffic.ended(ended_request())
    traffic.ended(ended_request(status=429, code="rate_limit_exceeded", ending="refused"))
    _declare_vllms(registry)
    return generate_latest(registry).decode()


def _declare_vllms(registry: CollectorRegistry) -> None:
    """Make vLLM's metrics from the source of its logger, which takes a second to read and fifteen to import."""
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0]) / "v1/metrics/loggers.py"
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in KINDS:
            said = {word.arg: word.value for word in node.keywords}
            labels = [each.value for each in ast.walk(said["labelnames"]) if isinstance(each, ast.Constant)]
            if isinstance(said["name"], ast.Constant) and said["name"].value != "vllm:lora_requests_info":
                names = {*labels, "model_name", "engine"}
                KINDS[node.func.attr](said["name"].value, "", sorted(names), registry=registry).labels(*sorted(names))
