"""LoRAHub's search as it was published, for decoder-only models: the yardstick for results and for speed.

Written from the description in Huang et al., 2023 (https://arxiv.org/abs/2307.13269), section 3, and its appendix: for
every candidate, the factors of all adapters are added element by element in a loop over adapters and tensors, and
loaded into a model with one adapter; one padded batch of all examples goes through the whole model; its loss, the mean
over all answer tokens, plus 0.05 mean |w| goes to nevergrad's NGOpt with weights within 1.5 of zero, 40 times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nevergrad
import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from loraloom.compose.scoring import Row, Weights

L1 = 0.05
BOUND = 1.5
BUDGET = 40
IGNORED = -100
"""The label of a token that the loss leaves out."""


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        weights: the optimiser's recommendation.
        trials: each candidate with its loss, in the order of asking.
    """

    weights: Weights
    trials: tuple[tuple[Weights, float], ...]


@dataclass
class Port:
    """The model with one adapter, whose factors every candidate replaces.

    Attributes:
        model: of peft.
        adapters: the tensors of every adapter, by their names.
        batch: the model's arguments.
    """

    model: PeftModel
    adapters: Sequence[Mapping[str, Tensor]]
    batch: Mapping[str, Tensor]
    trials: list[tuple[Weights, float]] = field(default_factory=list)

    @classmethod
    def load(cls, base: PreTrainedModel, pool: Sequence[Path], rows: Sequence[Row]) -> "Port":
        """The base, which peft changes, with adapters of one rank and the same modules; and the examples."""
        model = PeftModel.from_pretrained(base, pool[0]).to(base.dtype).eval()
        tensors = [load_file(folder / "adapter_model.safetensors") for folder in pool]
        adapters = [{name: each.to(base.dtype) for name, each in adapter.items()} for adapter in tensors]
        return cls(model, adapters, padded_batch(rows))

    def loss(self, weights: Weights) -> float:
        """The mean over all answer tokens of all examples, in nats: transformers' loss, in the model's own type."""
        set_peft_model_state_dict(self.model, self.mixed(weights))
        inputs = {name: each for name, each in self.batch.items() if name != "labels"}
        with torch.no_grad():
            logits = self.model(**inputs).logits[:, :-1]
        labels = self.batch["labels"][:, 1:]
        return float(cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED))

    def mixed(self, weights: Weights) -> dict[str, Tensor]:
        """Every tensor's weighted sum over the adapters."""
        mixed: dict[str, Tensor] = {}
        for weight, adapter in zip(weights, self.adapters, strict=True):
            for name, tensor in adapter.items():
                mixed[name] = mixed[name] + weight * tensor if name in mixed else weight * tensor
        return mixed

    def objective(self, weights: Weights) -> float:
        """What is minimised."""
        loss = self.loss(weights)
        self.trials.append((weights, loss))
        return loss + L1 * sum(map(abs, weights)) / len(weights)

    def search(self, optimizer: str = "NGOpt", budget: int = BUDGET, seed: int = 0, workers: int = 1) -> Found:
        """The search from weights of zero; `workers` candidates are asked for before the first of them is told."""
        count = len(self.adapters)
        space = nevergrad.p.Array(init=[0.0] * count, lower=[-BOUND] * count, upper=[BOUND] * count)
        space.random_state.seed(seed)
        found = nevergrad.optimizers.registry[optimizer](space, budget=budget, num_workers=workers)
        self.trials.clear()
        while len(self.trials) < budget:
            asked = [found.ask() for _ in range(min(workers, budget - len(self.trials)))]
            for candidate in asked:
                found.tell(candidate, self.objective(_weights(candidate)))
        return Found(_weights(found.provide_recommendation()), tuple(self.trials))


def padded_batch(rows: Sequence[Row]) -> dict[str, Tensor]:
    """All examples, padded on the right; labels are the answers' tokens."""
    shape = len(rows), max(map(len, rows))
    tokens, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for line, row in enumerate(rows):
        tokens[line, : len(row)] = torch.tensor(row.prompt + row.answer)
        mask[line, : len(row)] = 1
        labels[line, len(row.prompt) : len(row)] = torch.tensor(row.answer)
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}


def _weights(candidate: nevergrad.p.Array) -> Weights:
    return tuple(float(value) for value in candidate.value)
