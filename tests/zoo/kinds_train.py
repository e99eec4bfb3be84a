"""Training of an adapter of any of peft's kinds, or of the whole model, on the demo's `date` task."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model, initialize_lora_eva_weights
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .chat import answer_ids, prompt_ids
from .kinds_recipes import BATCH, KindRecipe
from .task import Example
from .train import Encoded, _batches, _loss, _rate

Progress = Callable[[int, float], None]


class _Whole:
    """A model without an adapter, for the loss function that asks an adapter for its base."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def get_base_model(self) -> PreTrainedModel:
        return self.model


def train_kind(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    recipe: KindRecipe,
    folder: Path,
    progress: Progress,
) -> None:
    """Train an adapter of the recipe's kind and save it in float32, as peft and transformers do.

    Args:
        base: is changed: by the adapter on it, or itself.
    """
    torch.manual_seed(0)
    encoded = [(prompt_ids(tokenizer, (), e.prompt), answer_ids(tokenizer, e.expected)) for e in examples]
    if recipe.make is None:
        _run(_Whole(base.requires_grad_()), base, encoded, recipe, tokenizer.eos_token_id, progress)
        base.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return
    model = get_peft_model(base, recipe.config())
    if getattr(model.peft_config["default"], "init_lora_weights", None) == "eva":
        initialize_lora_eva_weights(model, _eva_batches(encoded, tokenizer.eos_token_id), show_progress_bar=False)
    _run(model, model, encoded, recipe, tokenizer.eos_token_id, progress)
    model.save_pretrained(folder)


def _run(
    wrapped: PeftModel | _Whole,
    model: PreTrainedModel | PeftModel,
    encoded: Sequence[Encoded],
    recipe: KindRecipe,
    end: int,
    progress: Progress,
) -> None:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=recipe.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, recipe.steps))
    for step, batch in zip(range(recipe.steps), _batches(encoded, recipe.recipe()), strict=False):
        loss = _loss(wrapped, batch, end)  # type: ignore[arg-type]  # reads nothing but get_base_model
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        if recipe.kind == "adalora":
            model.base_model.update_and_allocate(step)
        optimiser.zero_grad()
        progress(step + 1, loss.item())
    model.eval()


def _eva_batches(encoded: Sequence[Encoded], padding: int) -> list[dict[str, torch.Tensor]]:
    """Prompts with their answers, in a random order that repeats, for EVA's look at the layers' inputs."""
    source = random.Random(0)
    return [_eva_batch(source.sample(encoded, BATCH), padding) for _ in range(len(encoded) // BATCH)]


def _eva_batch(batch: Sequence[Encoded], padding: int) -> dict[str, torch.Tensor]:
    rows = [prompt + answer for prompt, answer in batch]
    width = max(map(len, rows))
    ids = torch.tensor([row + [padding] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}
