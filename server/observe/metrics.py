"""What requests cost, for Prometheus: counted by key and adapter when they have ended, read at every scrape.

The registry's own counters are not used here: their labels live for ever, and an answer of a thousand tokens would
take them a thousand locked calls.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from loraloom.server.observe.account import Account
from loraloom.server.observe.histogram import ANSWERS, BETWEEN, FIRSTS, WAITS, Histogram
from loraloom.server.observe.labels import OTHER, Labels

NONE = "none"
"""The label of requests that selected no model, and of answers without a status."""
LONGEST = 128
"""Characters of a label; the name of a mixture can have thousands."""

Pair: TypeAlias = tuple[str, str]
"""Labels of a key and of an adapter."""


@dataclass
class _Cell:
    """The requests of one key for one adapter.

    Attributes:
        requests: how many, by class of status and by ending.
        prompt, cached, output: tokens.
        answers, firsts, between, edge, engine: times; see `_TIMES`.
    """

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    prompt: int = 0
    cached: int = 0
    output: int = 0
    answers: Histogram = field(default_factory=lambda: Histogram(ANSWERS))
    firsts: Histogram = field(default_factory=lambda: Histogram(FIRSTS))
    between: Histogram = field(default_factory=lambda: Histogram(BETWEEN))
    edge: Histogram = field(default_factory=lambda: Histogram(WAITS))
    engine: Histogram = field(default_factory=lambda: Histogram(WAITS))

    def add(self, account: Account) -> None:
        self.requests[_class(account.status), account.ending or NONE] += 1
        if not account.model:
            return
        self.prompt += account.prompt
        self.cached += account.cached
        self.output += account.output
        self.answers.add(account.seconds)
        if account.first is not None:
            self.firsts.add(account.first - account.began)
            self.between.merge(account.intervals)
        if account.edge_queued is not None:
            self.edge.add(account.edge_queued)
        if account.engine_queued is not None:
            self.engine.add(account.engine_queued)

    def copy(self) -> "_Cell":
        times = (self.answers.copy(), self.firsts.copy(), self.between.copy(), self.edge.copy(), self.engine.copy())
        return _Cell(self.requests.copy(), self.prompt, self.cached, self.output, *times)


_TOKENS: Sequence[tuple[str, str, Callable[[_Cell], int]]] = (
    ("prompt_tokens", "Tokens of prompts, those in the prefix cache included", lambda c: c.prompt),
    ("cached_tokens", "Tokens of prompts that were in the engine's prefix cache", lambda c: c.cached),
    ("output_tokens", "Tokens that the engine has generated, also for requests that were aborted", lambda c: c.output),
)
_TIMES: Sequence[tuple[str, str, Callable[[_Cell], Histogram]]] = (
    ("request_duration_seconds", "From a request's first byte to the end of its answer", lambda c: c.answers),
    ("time_to_first_token_seconds", "From a request's first byte to the engine's first token", lambda c: c.firsts),
    ("time_between_tokens_seconds", "From one token of an answer to its next", lambda c: c.between),
    ("edge_queue_seconds", "In the queue at the edge, where turns are fair between keys", lambda c: c.edge),
    ("engine_queue_seconds", "In the engine's own queue, behind the one at the edge", lambda c: c.engine),
)


class Traffic(Collector):
    """Counts requests by key and adapter, with a bounded number of series. Thread-safe.

    A key and an adapter have a label of their own while they are among those most asked for (`Labels`), and so has the
    pair of them; all others are "other". Who loses a label loses its series. A pair has up to 70 series: 60 of its
    five histograms, three of tokens, and one for each way in which its requests ended, which are seven in practice.
    With the defaults there are up to 150 pairs and, for each of 51 keys, the rest of its adapters and the requests that
    selected none: 15,000 series in all if 50 keys use 150 adapters; 70 if one key uses one. On top come the errors, by
    key and code.
    """

    def __init__(self, adapters: int = 50, keys: int = 50, pairs: int = 150) -> None:
        """
        Args:
            adapters: how many have a label of their own.
            keys: how many have a label of their own.
            pairs: how many of both together are told apart.
        """
        self._adapters: Labels[str] = Labels(adapters)
        self._keys: Labels[str] = Labels(keys)
        self._pairs: Labels[Pair] = Labels(pairs)
        self._cells: dict[Pair, _Cell] = {}
        self._errors: Counter[Pair] = Counter()
        self._lock = threading.Lock()

    def ended(self, account: Account) -> None:
        """Count a request that has ended."""
        with self._lock:
            pair = self._labels(account.access.key, _short(account.model))
            cell = self._cells.get(pair)
            if cell is None:
                cell = self._cells[pair] = _Cell()
            cell.add(account)
            if account.status >= 400:
                self._errors[pair[0], account.code or f"http_{account.status}"] += 1

    def label_of(self, key: str) -> str:
        """The label that a key has now."""
        return key if key in self._keys else OTHER

    def collect(self) -> Iterable[Metric]:
        """As Prometheus' client asks for it."""
        with self._lock:
            cells = {pair: cell.copy() for pair, cell in self._cells.items()}
            errors = self._errors.copy()
        yield _requests(cells)
        yield _errors(errors)
        used = {pair: cell for pair, cell in cells.items() if cell.answers.count}
        for name, text, tokens in _TOKENS:
            counter = CounterMetricFamily(f"loraloom_{name}", text, labels=("key", "adapter"))
            for pair, cell in used.items():
                counter.add_metric(pair, tokens(cell))
            yield counter
        for name, text, times in _TIMES:
            yield _histogram(name, text, {pair: times(cell) for pair, cell in used.items()})

    def _labels(self, key: str, adapter: str) -> Pair:
        """The labels of a request; whoever loses one by that loses its series."""
        self._forget(0, self._keys.note(key))
        key = self.label_of(key)
        if adapter == NONE:
            return key, NONE
        self._forget(1, self._adapters.note(adapter))
        if adapter not in self._adapters:
            return key, OTHER
        lost = self._pairs.note((key, adapter))
        if lost is not None:
            self._cells.pop(lost, None)
        return (key, adapter) if (key, adapter) in self._pairs else (key, OTHER)

    def _forget(self, place: int, label: str | None) -> None:
        if label is None:
            return
        for pair in [each for each in self._cells if each[place] == label]:
            del self._cells[pair]
            self._pairs.drop(pair)
        if place == 0:
            for error in [each for each in self._errors if each[0] == label]:
                del self._errors[error]


def _requests(cells: dict[Pair, _Cell]) -> Metric:
    family = CounterMetricFamily(
        "loraloom_requests",
        "Requests that have ended, by the class of their status and by how they ended",
        labels=("key", "adapter", "status", "ending"),
    )
    for pair, cell in cells.items():
        for how, count in cell.requests.items():
            family.add_metric((*pair, *how), count)
    return family


def _errors(errors: Counter[Pair]) -> Metric:
    family = CounterMetricFamily(
        "loraloom_errors", "Requests answered with an error, by its code", labels=("key", "code")
    )
    for labels, count in errors.items():
        family.add_metric(labels, count)
    return family


def _histogram(name: str, text: str, times: dict[Pair, Histogram]) -> Metric:
    family = HistogramMetricFamily(f"loraloom_{name}", text, labels=("key", "adapter"))
    for pair, histogram in times.items():
        if histogram.count:
            family.add_metric(pair, histogram.cumulative(), histogram.total)
    return family


def _class(status: int) -> str:
    return f"{status // 100}xx" if status else NONE


def _short(model: str) -> str:
    """An adapter's name as a label: the start of a long one, and enough of a digest to tell it from others."""
    if len(model) <= LONGEST:
        return model or NONE
    digest = hashlib.sha256(model.encode()).hexdigest()[:12]
    return f"{model[: LONGEST - 13]}…{digest}"
