"""What happens to adapters, as counters."""

import pytest
from prometheus_client import CollectorRegistry

from loraloom.server.observe.events import UNHEARD, Counted, Events, building, loading


def test_what_is_told_is_counted() -> None:
    registry = CollectorRegistry()
    events: Events = Counted(registry)
    events.asked(resident=True)
    events.asked(resident=False)
    events.asked(resident=True)
    events.evicted()
    with loading(events, "verify"), building(events):
        pass
    with pytest.raises(OSError, match="gone"), loading(events, "engine"):
        raise OSError("gone")
    with pytest.raises(ValueError, match="no"), building(events):
        raise ValueError("no")
    value = registry.get_sample_value
    assert value("loraloom_adapter_lookups_total", {"found": "memory"}) == 2
    assert value("loraloom_adapter_lookups_total", {"found": "disk"}) == 1
    assert value("loraloom_adapter_evictions_total") == 1
    assert value("loraloom_adapter_load_seconds_count", {"stage": "verify"}) == 1
    assert value("loraloom_adapter_load_seconds_count", {"stage": "engine"}) == 0
    assert value("loraloom_adapter_load_failures_total", {"stage": "engine"}) == 1
    assert value("loraloom_mixture_build_seconds_count") == 1
    assert value("loraloom_mixture_build_failures_total") == 1


def test_every_series_is_there_before_anything_happens() -> None:
    registry = CollectorRegistry()
    Counted(registry)
    assert registry.get_sample_value("loraloom_adapter_load_failures_total", {"stage": "engine"}) == 0
    assert registry.get_sample_value("loraloom_adapter_lookups_total", {"found": "memory"}) == 0


def test_nobody_needs_to_listen() -> None:
    with loading(UNHEARD, "verify"), building(UNHEARD):
        UNHEARD.asked(resident=False)
        UNHEARD.evicted()
    with pytest.raises(ValueError, match="no"), loading(UNHEARD, "engine"), building(UNHEARD):
        raise ValueError("no")
