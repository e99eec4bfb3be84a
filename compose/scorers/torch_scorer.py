"""The scorer that has the model to itself: whole populations at once, no token twice, the head on answers only."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from loraloom.adapters.arithmetic.factors import Factors
from loraloom.adapters.errors import AdapterError
from loraloom.adapters.weights import read_factors
from loraloom.compose.errors import InvalidPool, InvalidSpec
from loraloom.compose.scorers.adapted import AdaptedModel
from loraloom.compose.scorers.forward import Forward, shorten
from loraloom.compose.scorers.greedy import Greedy
from loraloom.compose.scorers.packed import common_prefix
from loraloom.compose.scorers.race import Race
from loraloom.compose.scoring import Row, RowScore, Stop, Weights, never

if TYPE_CHECKING:
    from transformers import PreTrainedModel


BATCH_TOKENS = 640
LEAST_TOKENS = 80


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
            batch_tokens: how many tokens of all candidates together are run at once, if one row has not more.

        Raises:
            InvalidPool: an adapter is damaged, or does not fit the model or, for this method, the others.
        """
        self._forward = Forward(model)
        self._adapted = AdaptedModel(model, [_read(folder) for folder in pool], method)
        self._greedy = Greedy(model)
        self._batch_tokens = batch_tokens

    @torch.inference_mode()
    def score(self, population: Sequence[Weights], rows: Sequence[Row], stop: Stop = never) -> list[list[RowScore]]:
        """As `Scorer`: the stop is asked whenever a batch of rows is done."""
        together = max(1, self._batch_tokens // len(rows[0]))
        found: list[list[RowScore]] = []
        for first in range(0, len(population), together):
            race = Race(range(first, min(first + together, len(population))), rows, stop)
            with self._adapted.under(population[first : first + together]):
                self._run(race)
            found += race.scores
        return found

    def _run(self, race: "Race") -> None:
        """Run batch after batch of the rows, each with the candidates that are still in the race."""
        cache = self._forward.cache(race.rows)
        while race.going:
            batch = self._forward.batch(race.rows, race.done, self._limit(len(race.going)))
            logits = self._forward.logits(batch, len(race.going), cache)
            places = race.add(batch.scores(logits))
            if race.going and places is not None:
                self._adapted.narrow(places)
            if race.going and cache is not None:
                shorten(cache, common_prefix(race.rows), places)

    def _limit(self, candidates: int) -> int:
        """How many tokens of each candidate are run at once: few enough that it can be stopped soon."""
        return max(self._batch_tokens // candidates, min(self._batch_tokens, LEAST_TOKENS))

    @torch.inference_mode()
    def answers(self, weights: Weights, prompts: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
        """As `Scorer`."""
        with self._adapted.under([weights]):
            return self._greedy.answers(prompts, limit)

    def close(self) -> None:
        """Give the model back as it was."""
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
    torch.nn.Module.to(model, torch.device(device))
    torch.nn.Module.eval(model)
    model.requires_grad_(False)
    return model


def _read(folder: Path) -> Mapping[str, Factors]:
    try:
        return read_factors(folder)[0]
    except AdapterError as error:
        raise InvalidPool(f"{folder} cannot be composed: {error}") from error
