"""`loraloom proxy …`: a small model with its adapters steers a large one that stays as it is."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from loraloom.server.cli.tables import table
from loraloom.server.proxy.fitting.checkpoint import Checkpoint
from loraloom.server.proxy.fitting.cost import Load, load, separate, shared
from loraloom.server.proxy.fitting.fit import Fit, billions, check_fit

Options = argparse.Namespace
Extra = Sequence[str]


def check(options: Options, _: Extra) -> int:
    """Whether two models can be served together, and what that costs; status 1 when they cannot."""
    fit = check_fit(options.large, options.small, options.expert)
    costs = None if fit.refusals else _costs(fit)
    if options.json:
        print(json.dumps(_facts(fit, costs), indent=2))
    else:
        _print_fit(fit)
        if costs is not None:
            print()
            _print_costs(*costs)
        print(f"\n{_verdict(fit)}")
    return 1 if fit.refusals else 0


Costs = tuple[Load, Load, Load]
"""The large model alone; the ratios to it with `--proxy-small`, and with `--proxy-expert` too."""


def _costs(fit: Fit) -> Costs:
    large, small = _load(fit.large), _load(fit.small)
    expert = small if fit.expert is None else _load(fit.expert)
    return large, shared(large, small), separate(large, small, expert)


def _load(model: Checkpoint) -> Load:
    stored = model.stored if model.architecture.quantization else None
    return load(model.architecture, model.parameters, stored)


def _facts(fit: Fit, costs: Costs | None) -> dict[str, object]:
    models = {"large": fit.large, "small": fit.small, "expert": fit.expert}
    return {
        **{role: model and _model_facts(model) for role, model in models.items()},
        "fits": not fit.refusals,
        "refusals": fit.refusals,
        "notes": fit.notes,
        "costs": costs and dict(zip(("large", "proxy_small", "proxy_expert"), map(asdict, costs), strict=True)),
    }


def _model_facts(model: Checkpoint) -> dict[str, object]:
    return {"name": model.name, "parameters": model.parameters, **asdict(model.architecture)}


def _print_fit(fit: Fit) -> None:
    models = {"large": fit.large, "small": fit.small, "expert": fit.expert}
    rows = [(role, *_row(model)) for role, model in models.items() if model is not None]
    table(("", "MODEL", "CLASS", "PARAMETERS", "LAYERS", "WIDTH", "VOCABULARY", "CONTEXT"), rows)
    findings = [*(("refused", text) for text in fit.refusals), *(("note", text) for text in fit.notes)]
    if findings:
        print()
    for verdict, text in findings:
        print(f"{verdict:8} {text}")


def _row(model: Checkpoint) -> tuple[str, ...]:
    sizes = model.architecture
    packed = f" ({sizes.quantization})" if sizes.quantization else ""
    numbers = (sizes.layers, sizes.hidden, sizes.vocab_size, sizes.max_position_embeddings)
    classes = ", ".join(sizes.architectures) or "-"
    return (
        model.name,
        classes,
        billions(model.parameters) + packed,
        *(str(number) if number else "-" for number in numbers),
    )


def _print_costs(large: Load, small: Load, expert: Load) -> None:
    """What the large model takes by itself, and how often that is taken."""
    rows = [
        ("weights in memory", _size(large.weights), small.weights, expert.weights),
        ("KV cache a token", _size(large.cache), small.cache, expert.cache),
        ("weights read a decoded token", _size(large.read), small.read, expert.read),
        ("operations a token", f"{large.operations / 1e9:.3g} GFLOP", small.operations, expert.operations),
    ]
    table(("", "LARGE ALONE", "--proxy-small", "--proxy-expert"), [(*row[:2], *map(_times, row[2:])) for row in rows])
    print("The adapter itself, and the part of attention that grows with the context, are left out.")


def _times(ratio: float) -> str:
    return f"x {ratio:.2f}"


def _size(count: float) -> str:
    """Bytes in the largest unit of which there is one at least."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def _verdict(fit: Fit) -> str:
    if fit.refusals:
        return f"they do not fit: {len(fit.refusals)} reason{'' if len(fit.refusals) == 1 else 's'}"
    expert = "" if fit.expert is None else f" --proxy-expert {fit.expert.name}"
    return f"they fit: `loraloom serve {fit.large.name} --proxy-small {fit.small.name}{expert}`"
