"""Healing: low-rank changes of a pruned model, trained to have the large model's states and next tokens."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from ..recipe import ATTENTION, MLP
from .lessons import Lesson, padded, states_of


@dataclass(frozen=True)
class Healing:
    """How the small model is healed.

    Attributes:
        rank: LoRA rank of every linear module; the scaling is one.
        steps: optimiser steps of `batch` texts each.
        rate: peak learning rate, reached after a twentieth of the steps, then lowered to zero along a cosine.
        quiet: the share of steps at the beginning that learn from states alone.
        places: the share of a text's places whose next tokens are learned from, since the head is costly.
    """

    rank: int = 64
    steps: int = 375
    batch: int = 8
    rate: float = 2e-3
    quiet: float = 0.33
    places: float = 0.33
    seed: int = 0


def distil(
    small: PreTrainedModel,
    lessons: Sequence[Lesson],
    healing: Healing,
    progress: Callable[[int, float, float], None],
) -> PeftModel:
    """Wrap the pruned model in low-rank changes and train those.

    Args:
        progress: receives each step's number, its error of states and its divergence of next tokens in nats.
    """
    torch.manual_seed(healing.seed)
    config = LoraConfig(r=healing.rank, lora_alpha=healing.rank, target_modules=list(ATTENTION + MLP))
    model = get_peft_model(small, config)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=healing.rate, weight_decay=0.0, betas=(0.9, 0.98))
    for step, batch in zip(range(healing.steps), _batches(lessons, healing), strict=False):
        for group in optimiser.param_groups:
            group["lr"] = healing.rate * _share(step, healing.steps)
        states, tokens = _losses(model, batch, 0.0 if step < healing.quiet * healing.steps else healing.places)
        (states + tokens).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        progress(step + 1, states.item(), tokens.item())
    return model.eval()


def factors(model: PeftModel) -> dict[str, torch.Tensor]:
    """The changes as `loraloom.demo.small.healed` reads them, in bfloat16."""
    found = {}
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            found[f"{name}.weight.up"] = module.lora_B["default"].weight.detach().bfloat16().contiguous()
            found[f"{name}.weight.down"] = module.lora_A["default"].weight.detach().bfloat16().contiguous()
    return found


def _share(step: int, steps: int) -> float:
    """The share of the peak learning rate at a step."""
    rise = max(1, steps // 20)
    fall = torch.tensor(torch.pi * (step - rise) / (steps - rise))
    return (step + 1) / rise if step < rise else float(0.5 + 0.5 * fall.cos())


def _batches(lessons: Sequence[Lesson], healing: Healing) -> Iterator[list[Lesson]]:
    """Every lesson once in random order, and again for as long as batches are asked for; those alike in length meet."""
    source = random.Random(healing.seed)
    while True:
        order = sorted(source.sample(lessons, len(lessons)), key=lambda lesson: len(lesson.ids) // 32)
        starts = range(0, len(order) - healing.batch + 1, healing.batch)
        yield from (order[start : start + healing.batch] for start in source.sample(starts, len(starts)))


def _losses(model: PeftModel, batch: list[Lesson], places: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The error of the states, and the divergence of the next tokens at a share of the places."""
    causal = model.get_base_model()
    ids = padded([lesson.ids.tolist() for lesson in batch])
    real = torch.zeros_like(ids, dtype=torch.bool)
    for row, lesson in enumerate(batch):
        real[row, : len(lesson.ids)] = True
    output = causal.model(input_ids=ids, use_cache=False, output_hidden_states=True)
    states = states_of(output, range(causal.config.num_hidden_layers))[:, real]
    error = relative_error(states, torch.cat([lesson.states for lesson in batch], 1).float())
    if not places:
        return error, torch.zeros(())
    drawn = torch.rand(states.shape[1]) < places
    logits = causal.lm_head(states[-1, drawn])
    likely, logs = (torch.cat([getattr(lesson, name) for lesson in batch])[drawn] for name in ("likely", "logs"))
    return error, divergence(logits, likely, logs)


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Squared distance over squared length, the mean over layers and places of (layers, places, hidden)."""
    return ((found - wanted).square().sum(-1) / wanted.square().sum(-1)).mean()


def divergence(logits: torch.Tensor, likely: torch.Tensor, logs: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence from the likely tokens and all others taken together, mean over places, in nats.

    Args:
        logits: (places, vocabulary).
        likely: ids, (places, top).
        logs: their wanted log probabilities, (places, top).
    """
    own = logits.float().log_softmax(-1).gather(-1, likely)
    known = (logs.exp() * (logs - own)).sum(-1)
    rest, own_rest = (1 - logs.exp().sum(-1), 1 - own.exp().sum(-1))
    rest, own_rest = rest.clamp_min(1e-4), own_rest.clamp_min(1e-4)
    return (known + rest * (rest.log() - own_rest.log())).mean()
