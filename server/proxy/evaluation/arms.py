"""The systems that are compared, and how each is asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from loraloom.adapters.scanner import number_text
from loraloom.server.proxy.evaluation.questions import Question
from loraloom.server.proxy.evaluation.spec import HEADLINE, EvaluationSpec
from loraloom.server.proxy.evaluation.task import Task

ServerName = Literal["large", "proxy", "small", "expert"]

BASE = "evaluated"
"""What every server calls its own model in requests."""
GREEDY = {"temperature": 0, "top_p": 1, "top_k": 0, "repetition_penalty": 1}
"""Said of every request: each model's own generation_config.json would have its own rules."""
LARGE, SHOTS, SMALL, SMALL_TUNED, LARGE_TUNED = "large", "large-shots", "small", "small-tuned", "large-tuned"


@dataclass(frozen=True)
class Arm:
    """One system.

    Attributes:
        key: in the results.
        label: what people call it.
        server: which server has it.
        tuned: whose adapter of the task it needs: the large or the small model's; None where it needs none.
        alpha: the strength of steering; None where nothing is steered.
        shots: whether examples stand in the prompt.
    """

    key: str
    label: str
    server: ServerName
    tuned: Literal["large", "small"] | None = None
    alpha: float | None = None
    shots: bool = False

    def takes(self, task: Task) -> bool:
        """Whether it can be asked this task: the adapter of the large model may not be there."""
        return self.tuned != "large" or task.spec.large_adapter is not None

    def model(self, task: Task) -> str:
        """The `model` of a request."""
        name = BASE if self.tuned is None else task.spec.adapter
        return name if self.alpha is None else f"{name}~{number_text(self.alpha)}"

    def request(self, task: Task, question: Question, max_tokens: int) -> Mapping[str, Any]:
        """The body of a chat completion, greedy."""
        turns = [turn for shot in (task.shots if self.shots else ()) for turn in _turns(shot)]
        messages = [*turns, {"role": "user", "content": question.prompt}]
        return {"model": self.model(task), "messages": messages, "max_tokens": max_tokens, **GREEDY}


def proxy_key(alpha: float) -> str:
    """The key of the arm that is steered with this strength."""
    return f"proxy~{number_text(alpha)}"


def arms_of(spec: EvaluationSpec) -> tuple[Arm, ...]:
    """Every arm, in the order of the report.

    The large model alone runs in a server of its own: where it can be steered, each request pays for the small model.
    """
    adapter: Literal["small"] | None = "small" if spec.expert is None else None
    shots = (Arm(SHOTS, f"large, {spec.shots} examples in the prompt", "large", shots=True),) if spec.shots else ()
    tuned = (Arm(LARGE_TUNED, "large, tuned directly", "large", tuned="large"),) if _has_large_adapters(spec) else ()
    steered = (
        Arm(proxy_key(alpha), f"proxy-tuned, alpha {number_text(alpha)}", "proxy", adapter, alpha)
        for alpha in spec.alphas
    )
    return (
        Arm(LARGE, "large alone", "large"),
        *shots,
        Arm(SMALL, "small alone", "small"),
        Arm(SMALL_TUNED, "small, tuned", "expert" if spec.expert else "small", adapter),
        *steered,
        *tuned,
    )


def headline() -> str:
    """The key of the arm that the report speaks of first."""
    return proxy_key(HEADLINE)


def _has_large_adapters(spec: EvaluationSpec) -> bool:
    return any(task.large_adapter is not None for task in spec.tasks)


def _turns(shot: Question) -> tuple[dict[str, str], dict[str, str]]:
    return {"role": "user", "content": shot.prompt}, {"role": "assistant", "content": shot.expected}
