"""What examples in the prompt say about a gain: whether it is more than the form of the answers."""

from loraloom.compose.result import HeldOut, Result
from loraloom.compose.verdict import is_better


def format_remark(result: Result) -> str:
    """In a sentence or two; nothing where there is no gain to speak of.

    Most of what LoRAHub gains on BIG-Bench Hard (Huang et al. 2023, https://arxiv.org/abs/2307.13269) it gains on tasks
    whose output format the base model alone misses; examples in the prompt show that format too.
    """
    if "nothing" not in result.comparisons or not is_better(result.comparisons["nothing"]):
        return ""
    comparison = result.comparisons.get("in_context")
    if comparison is None or "in_context" not in result.held_out:
        return (
            "The base model with examples in its prompt was not measured, so it cannot be told how much of the gain is "
            "only the format of the answers."
        )
    cost = _cost(result.held_out["in_context"], result.held_out.get("composition"))
    if is_better(comparison):
        return f"It also beats the base model with examples in its prompt, {cost}: the gain is more than format."
    verb, chance = ("may do", "may be") if comparison.gain > 0 else ("does", "is likely")
    return (
        f"The base model with examples in its prompt {verb} as well, {cost}: "
        f"at least part of the gain over the base model {chance} the format of the answers, which examples show too."
    )


def _cost(in_context: HeldOut, composition: HeldOut | None) -> str:
    tokens = f"at {in_context.prompt_tokens:.0f} prompt tokens a request"
    return tokens if composition is None else f"{tokens} instead of {composition.prompt_tokens:.0f}"
