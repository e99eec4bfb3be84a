"""The arms, and what they ask."""

from loraloom.server.proxy.evaluation.arms import BASE, arms_of, headline
from loraloom.server.proxy.evaluation.plan import Plan
from tests.server.proxy.evaluation.described import plan_of


def models(plan: Plan) -> dict[str, str]:
    return {arm.key: arm.model(plan.tasks[0]) for arm in arms_of(plan.spec)}


def test_adapters_of_the_small_model() -> None:
    plan = plan_of()
    assert models(plan) == {
        "large": BASE,
        "large-shots": BASE,
        "small": BASE,
        "small-tuned": "tuned/date",
        "proxy~0.5": "tuned/date~0.5",
        "proxy~1": "tuned/date~1",
        "proxy~1.5": "tuned/date~1.5",
        "large-tuned": "tuned/date",
    }
    servers = {arm.key: arm.server for arm in arms_of(plan.spec)}
    assert (servers["large"], servers["small-tuned"], servers[headline()]) == ("large", "small", "proxy")


def test_an_expert() -> None:
    plan = plan_of(expert="org/tuned", small_adapter=None, shots=0)
    found = {arm.key: (arm.server, arm.model(plan.tasks[0])) for arm in arms_of(plan.spec)}
    assert found["small-tuned"] == ("expert", BASE)
    assert found["proxy~0.5"] == ("proxy", f"{BASE}~0.5")
    assert "large-shots" not in found


def test_strengths_that_are_nearly_the_same_are_two_arms() -> None:
    plan = plan_of(alphas=(1.0, 1.0000001))
    assert list(models(plan).items())[4:6] == [
        ("proxy~1", "tuned/date~1"),
        ("proxy~1.0000001", "tuned/date~1.0000001"),
    ]
    labels = [arm.label for arm in arms_of(plan.spec)]
    assert len(set(labels)) == len(labels)


def test_without_adapters_of_the_large_model_nothing_is_tuned_directly() -> None:
    plan, without = plan_of(), plan_of(large_adapter=None)
    assert "large-tuned" not in {arm.key for arm in arms_of(without.spec)}
    (tuned,) = (arm for arm in arms_of(plan.spec) if arm.key == "large-tuned")
    assert tuned.takes(plan.tasks[0])
    assert not tuned.takes(without.tasks[0])


def test_a_request_is_greedy_and_has_its_examples_as_turns() -> None:
    plan = plan_of()
    by_key = {arm.key: arm for arm in arms_of(plan.spec)}
    task = plan.tasks[0]
    plain = by_key["large"].request(task, task.questions[3], 64)
    assert plain == {
        "model": BASE,
        "messages": [{"role": "user", "content": "date test 3"}],
        "max_tokens": 64,
        "temperature": 0,
        "top_p": 1,
        "top_k": 0,
        "repetition_penalty": 1,
    }
    shown = by_key["large-shots"].request(task, task.questions[3], 64)["messages"]
    assert [turn["role"] for turn in shown] == ["user", "assistant"] * 2 + ["user"]
    assert [turn["content"] for turn in shown][1:4] == ["date answer 0", "date shot 1", "date answer 1"]
    assert shown[-1] == plain["messages"][0]
