"""What a scrape has of requests."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from loraloom.server.observe.metrics import Traffic
from tests.server.observe.conftest import Ended


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def traffic(registry: CollectorRegistry) -> Traffic:
    traffic = Traffic(adapters=3, keys=3, pairs=5)
    registry.register(traffic)
    return traffic


def series(registry: CollectorRegistry) -> int:
    return sum(len(family.samples) for family in text_string_to_metric_families(generate_latest(registry).decode()))


def test_one_request(traffic: Traffic, registry: CollectorRegistry, ended: Ended) -> None:
    traffic.ended(ended())
    both = {"key": "team-a", "adapter": "sql@4"}
    values = {
        "loraloom_prompt_tokens_total": 12,
        "loraloom_cached_tokens_total": 8,
        "loraloom_output_tokens_total": 4,
        "loraloom_request_duration_seconds_sum": 2,
        "loraloom_time_to_first_token_seconds_sum": 0.5,
        "loraloom_time_between_tokens_seconds_count": 3,
        "loraloom_edge_queue_seconds_count": 1,
        "loraloom_engine_queue_seconds_sum": 0.2,
    }
    assert {name: registry.get_sample_value(name, both) for name in values} == pytest.approx(values)
    how = both | {"status": "2xx", "ending": "answered"}
    assert registry.get_sample_value("loraloom_requests_total", how) == 1
    first = "loraloom_time_to_first_token_seconds_bucket"
    assert [registry.get_sample_value(first, both | {"le": le}) for le in ("0.25", "0.5", "+Inf")] == [0, 1, 1]


def test_errors_by_key_and_code_whoever_found_them(traffic: Traffic, registry: CollectorRegistry, ended: Ended) -> None:
    traffic.ended(ended(model="", status=401, code="invalid_api_key", ending="refused", admitted=None))
    traffic.ended(ended(status=400, ending="refused"))  # the engine's server found it
    for code in ("invalid_api_key", "http_400"):
        assert registry.get_sample_value("loraloom_errors_total", {"key": "team-a", "code": code}) == 1
    how = {"key": "team-a", "adapter": "none", "status": "4xx", "ending": "refused"}
    assert registry.get_sample_value("loraloom_requests_total", how) == 1


def test_requests_that_selected_nothing_have_no_times(
    traffic: Traffic, registry: CollectorRegistry, ended: Ended
) -> None:
    traffic.ended(ended(model="", path="/v1/models"))
    assert "_bucket" not in generate_latest(registry).decode()


def test_the_rest_of_a_keys_adapters_are_together(traffic: Traffic, registry: CollectorRegistry, ended: Ended) -> None:
    for number in range(6):
        traffic.ended(ended(model=f"a{number}@1"))
    labels = {"key": "team-a", "adapter": "other"}
    assert registry.get_sample_value("loraloom_output_tokens_total", labels) == 12
    assert registry.get_sample_value("loraloom_output_tokens_total", labels | {"adapter": "a2@1"}) == 4


def test_whoever_loses_a_label_loses_its_series(traffic: Traffic, registry: CollectorRegistry, ended: Ended) -> None:
    for name in ("a@1", "b@1", "c@1", *["d@1"] * 20):
        traffic.ended(ended(model=name))
    text = generate_latest(registry).decode()
    assert 'adapter="d@1"' in text
    assert 'adapter="a@1"' not in text
    for name in ("k1", "k2", *["k3"] * 50, *["k4"] * 50):
        traffic.ended(ended(key=name, status=429, code="rate_limit_exceeded", model="d@1"))
    text = generate_latest(registry).decode()
    assert 'key="k1"' not in text
    assert 'key="k3"' in text
    assert (traffic.label_of("k3"), traffic.label_of("k1")) == ("k3", "other")


def test_the_number_of_series_is_bounded_whatever_comes(
    traffic: Traffic, registry: CollectorRegistry, ended: Ended
) -> None:
    """5 pairs, and for 4 keys (the rest among them) their other adapters, with 70 series each."""
    for number in range(3000):
        traffic.ended(ended(key=f"key-{number % 17}", model=f"mix-{number * number % 911}@1"))
    assert series(registry) <= (5 + 4) * 70
    total = sum(
        sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == "loraloom_requests_total"
    )
    assert 2000 < total <= 3000  # what had lost its label is gone


def test_long_names_are_cut_and_stay_apart(traffic: Traffic, registry: CollectorRegistry, ended: Ended) -> None:
    traffic.ended(ended(model="+".join(f"0.{i}*a@{i}" for i in range(500))))
    traffic.ended(ended(model="+".join(f"0.{i}*a@{i}" for i in range(501))))
    found = {
        sample.labels["adapter"]
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }
    assert len(found) == 2
    assert {len(name) for name in found} == {128}
