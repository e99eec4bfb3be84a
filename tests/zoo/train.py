"""Training of one adapter: cross entropy on the answer's tokens, AdamW, nothing else."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .chat import answer_ids, prompt_ids
from .recipe import Recipe
from .task import Example


def load_base(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base model in float32 on the CPU, and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), tokenizer


def train(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    recipe: Recipe,
    progress: Callable[[int, float], None],
) -> PeftModel:
    """Wrap the base in a new adapter and train that.

    Args:
        progress: receives each step's number and its mean loss in nats per answer token.
    """
    torch.manual_seed(recipe.seed)
    model = get_peft_model(base, _lora_config(recipe))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=recipe.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, recipe.steps))
    encoded = [(prompt_ids(tokenizer, (), e.prompt), answer_ids(tokenizer, e.expected)) for e in examples]
    for step, batch in zip(range(recipe.steps), _batches(encoded, recipe), strict=False):
        loss = _loss(model, batch, tokenizer.eos_token_id)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        progress(step + 1, loss.item())
    return model.eval()


def save(model: PeftModel, folder: Path, base: str) -> None:
    """Write the adapter as peft does, in bfloat16 and with the base model's public name."""
    config = model.peft_config["default"]
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(folder)
    _sort_names(folder / "adapter_config.json")
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {key: value.to(torch.bfloat16).contiguous() for key, value in state.items()}
    weights = folder / "adapter_model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors makes files that only their owner can read


def _sort_names(file: Path) -> None:
    """Write the target modules in order of name: peft holds them in a set, whose order changes from run to run."""
    fields = json.loads(file.read_text(encoding="utf-8"))
    fields["target_modules"].sort()
    file.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _lora_config(recipe: Recipe) -> LoraConfig:
    more = {key: list(value) if isinstance(value, tuple) else value for key, value in recipe.more.items()}
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=list(recipe.targets),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        **more,
    )


def _rate(step: int, steps: int) -> float:
    """The share of the peak learning rate: a linear rise over a tenth of the steps, then a linear fall to zero."""
    rise = max(1, steps // 10)
    return min((step + 1) / rise, (steps - step) / (steps - rise))


Encoded = tuple[list[int], list[int]]


def _batches(encoded: Sequence[Encoded], recipe: Recipe) -> Iterator[list[Encoded]]:
    """Every example once in random order, and again for as long as batches are asked for."""
    if len(encoded) < recipe.batch:
        raise ValueError(f"a batch of {recipe.batch} examples needs at least as many; there are {len(encoded)}")
    source = random.Random(recipe.seed)
    while True:
        order = source.sample(encoded, len(encoded))
        for start in range(0, len(order) - recipe.batch + 1, recipe.batch):
            yield order[start : start + recipe.batch]


def _loss(model: PeftModel, batch: list[Encoded], padding: int) -> torch.Tensor:
    """Mean cross entropy over answer tokens; the head, a fifth of the model, runs on their positions alone."""
    width = max(len(prompt) + len(answer) for prompt, answer in batch)
    rows = [prompt + answer + [padding] * (width - len(prompt) - len(answer)) for prompt, answer in batch]
    wanted = torch.zeros(len(batch), width, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(batch):
        wanted[row, len(prompt) : len(prompt) + len(answer)] = True
    ids = torch.tensor(rows)
    causal = model.get_base_model()  # right padding needs no mask: nothing looks ahead
    hidden = causal.model(input_ids=ids, use_cache=False).last_hidden_state
    logits = causal.lm_head(hidden[:, :-1][wanted[:, 1:]])
    return torch.nn.functional.cross_entropy(logits, ids[wanted])
