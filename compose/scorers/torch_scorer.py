"""The scorer that has the model to itself: whole populations at once, no token twice, the head on answers only."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from loraloom.adapters.errors import AdapterError
from loraloom.adapters.weights import read_factors
from loraloom.compose.errors import InvalidPool, InvalidSpec
from loraloom.compose.scorers.adapted import AdaptedModel
from loraloom.compose.scorers.batches import Batch
from loraloom.compose.scorers.packed import common_prefix, packed
from loraloom.compose.scoring import Row, RowScore, Stop, Weights, never

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import Cache, PreTrainedModel

    from loraloom.adapters.arithmetic.factors import Factors

BATCH_TOKENS = 512


class TorchScorer:
    """Scores weightings of a pool on a model of its own; see `scoring.Scorer`.

    The same population and rows give the same scores to the bit, on one machine with one number of threads.
    """

    def __init__(
        self, model: "PreTrainedModel", pool: Sequence[Path], method: str, *, batch_tokens: int = BATCH_TOKENS
    ) -> None:
        """
        Args:
            model: a causal language model, in evaluation; it is changed until `close`.
            pool: folders of adapters in normal form.
            method: "exact" or "lorahub".
            batch_tokens: how many tokens of all candidates together are run at once.

        Raises:
            InvalidPool: an adapter is damaged, or does not fit the model or, for this method, the others.
        """
        self._model = model
        self._adapted = AdaptedModel(model, [_read(folder) for folder in pool], method)
        self._batch_tokens = batch_tokens

    @torch.inference_mode()
    def score(self, population: Sequence[Weights], rows: Sequence[Row], stop: Stop = never) -> list[list[RowScore]]:
        batches = list(packed(rows, self._batch_tokens, self._model.device, self._model.dtype))
        found: list[list[RowScore]] = []
        for first in range(0, len(population), 8):
            part = population[first : first + 8]
            found += self._part(part, first, batches, common_prefix(rows), stop)
        return found

    def _part(
        self, population: Sequence[Weights], first: int, batches: Sequence[Batch], prefix: int, stop: Stop
    ) -> list[list[RowScore]]:
        from transformers import DynamicCache

        cache = DynamicCache() if len(batches) > 1 else None
        found: list[list[RowScore]] = [[] for _ in population]
        going = list(range(len(population)))
        with self._adapted.under(population):
            for number, batch in enumerate(batches):
                for candidate, scores in zip(going, self._scores(batch, len(going), cache), strict=True):
                    found[candidate] += scores
                if number + 1 == len(batches):
                    break
                keep = [place for place, each in enumerate(going) if not stop(first + each, found[each])]
                if not keep:
                    break
                assert cache is not None
                cache.crop(prefix)
                if len(keep) < len(going):
                    self._adapted.narrow(keep)
                    cache.batch_select_indices(torch.tensor(keep, device=self._model.device))
                    going = [going[place] for place in keep]
        return found

    def _scores(self, batch: Batch, candidates: int, cache: "Cache | None") -> list[list[RowScore]]:
        arguments = batch.arguments(candidates)
        logits = self._model(**arguments, past_key_values=cache, use_cache=cache is not None).logits
        return batch.scores(logits)

    @torch.inference_mode()
    def answers(self, weights: Weights, prompts: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
        with self._adapted.under([weights]):
            return [self._answer(prompt, limit) for prompt in prompts]

    def _answer(self, prompt: Sequence[int], limit: int) -> list[int]:
        given = torch.tensor([list(prompt)], device=self._model.device)
        ends = self._ends()
        out = self._model.generate(
            given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            num_beams=1,
            max_new_tokens=limit,
            pad_token_id=min(ends, default=0),
        )
        new = out[0, given.shape[1] :].tolist()
        return new[:-1] if new and new[-1] in ends else new

    def _ends(self) -> set[int]:
        config = self._model.generation_config
        ends = None if config is None else config.eos_token_id
        return set() if ends is None else {ends} if isinstance(ends, int) else set(ends)

    def close(self) -> None:
        self._adapted.close()


def load_model(base: str | Path, device: str | None = None) -> "PreTrainedModel":
    """A causal language model to score with: in evaluation, without gradients.

    Args:
        base: its folder, or Hugging Face id.
        device: where it goes; None is a GPU if there is one. On a CPU it is in float32, elsewhere in its own type.

    Raises:
        InvalidSpec: it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM, PreTrainedModel

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32 if device == "cpu" else "auto")
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InvalidSpec(f"the base {base} cannot be loaded as a causal language model: {error}") from error
    assert isinstance(model, PreTrainedModel)
    return model.to(device).eval().requires_grad_(False)


def _read(folder: Path) -> "Mapping[str, Factors]":
    try:
        return read_factors(folder)[0]
    except AdapterError as error:
        raise InvalidPool(f"{folder} cannot be composed: {error}") from error
