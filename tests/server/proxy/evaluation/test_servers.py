"""Which servers are started."""

from pathlib import Path

import pytest

from loraloom.adapters.errors import BaseMismatch
from loraloom.adapters.names import parse_adapter
from loraloom.adapters.store import Store
from loraloom.server.proxy.evaluation.plan import Plan, planned
from loraloom.server.proxy.evaluation.servers import ServerPlan, servers_of, vllm_arguments
from tests.server.proxy.evaluation.described import described, plan_of, written


def of(plan: Plan) -> tuple[ServerPlan, ...]:
    return servers_of(plan.spec, plan.models)


def test_the_large_model_alone_is_not_slowed_by_the_small_one() -> None:
    large, proxy, small = of(plan_of())
    assert [arm.key for arm in large.arms] == ["large", "large-shots", "large-tuned"]
    assert (large.model, large.proxy) == ("org/large", ())
    assert [arm.key for arm in proxy.arms] == ["proxy~0.5", "proxy~1", "proxy~1.5"]
    assert (proxy.model, proxy.proxy, proxy.adapted) == ("org/large", ("--proxy-small", "org/small"), "org/small")
    assert [arm.key for arm in small.arms] == ["small", "small-tuned"]


def test_an_expert_has_a_server_of_its_own() -> None:
    plan = plan_of(expert="org/tuned", small_adapter=None)
    _, proxy, small, expert = of(plan)
    assert proxy.proxy == ("--proxy-small", "org/small", "--proxy-expert", "org/tuned")
    assert (proxy.adapters, small.adapters) == ({}, {})
    assert (expert.model, [arm.key for arm in expert.arms]) == ("org/tuned", ["small-tuned"])


def test_the_command_line() -> None:
    _, proxy, _ = of(plan_of())
    words = proxy.arguments(8123, Path("work"), ("--dtype", "float32"))
    assert words[0] == "org/large"
    assert " ".join(words[1:]) == (
        "--served-name evaluated --port 8123 --adapters work/store --cache work/cache --jobs work/jobs"
        " --proxy-small org/small -- --dtype float32"
    )


def test_settings_are_those_of_the_command_line() -> None:
    large, proxy, *_ = of(plan_of(expert="org/tuned", small_adapter=None))
    assert (large.settings.model, large.settings.proxy_small) == ("org/large", None)
    assert (proxy.settings.proxy_small, proxy.settings.proxy_expert) == ("org/small", "org/tuned")
    assert proxy.settings.base_name == "evaluated"


def test_a_store_has_the_adapters_of_its_model(tmp_path: Path) -> None:
    large, proxy, _ = of(planned(written(tmp_path, described(tmp_path)), print))
    stores = [Store.open(str(tmp_path / each.name)) for each in (large, proxy)]
    digests = []
    for each, store in zip((large, proxy), stores, strict=True):
        each.fill(tmp_path / each.name)
        assert store.names() == ["tuned/date", "tuned/sql"]
        digests.append(store.resolve(parse_adapter("tuned/date")).digest)
    assert digests[0] != digests[1]


def test_an_adapter_of_another_model_is_not_served(tmp_path: Path) -> None:
    description = described(tmp_path)
    plan = planned(written(tmp_path, description), print)
    other = tmp_path / "large-model/model.safetensors"
    other.write_bytes(other.read_bytes().replace(b"q_proj", b"k_proj"))
    with pytest.raises(BaseMismatch):
        of(plan)[0].fill(tmp_path / "store")


def test_every_model_is_asked_by_the_same_template(tmp_path: Path) -> None:
    words = vllm_arguments(("--dtype", "float32"), "{{ messages }}", tmp_path)
    assert words[:3] == ("--dtype", "float32", "--chat-template")
    assert Path(words[3]).read_text() == "{{ messages }}"
