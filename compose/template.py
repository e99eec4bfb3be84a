"""The job that `loraloom compose init` writes: every field, with what it does and its default."""

from pathlib import Path

from loraloom.compose.errors import InvalidSpec
from loraloom.compose.optimizers import DEFAULT_OPTIMIZER, OPTIMIZERS

_OPTIMIZERS = "\n".join(f"  #   {name:<13} {kind.about}" for name, kind in OPTIMIZERS.items())

TEMPLATE = f"""\
# A job for `loraloom compose run`: learn how much of each adapter helps with a few examples.
# Only `examples` has no default; take out what you do not change.

name: composition             # the adapter that is published; publishing again makes a new version

# What may be combined: all (adapters of the base), tag:NAME (what that tag names of each), or a list.
pool:
  adapters: all               # or for example [sql@4, date, team-a/json@stable]
  preselect: null             # keep this many of a large pool; null keeps all
  by: score                   # score: those that do best alone; similarity: by one pass of the base model
# base: path/to/model         # by default the one that the adapters name

# 5 to 50 examples, one JSON object a line, or inline as below. Relative paths are relative to this file.
#   {{"prompt": "…", "completion": "…"}}
#   {{"messages": [{{"role": "user", "content": "…"}}, {{"role": "assistant", "content": "…"}}]}}
# examples: examples.jsonl
examples:
  - {{prompt: "Write the number in words: 4", completion: "four"}}
  - {{prompt: "Write the number in words: 17", completion: "seventeen"}}

# What the composition is judged by: leave-one-out, a share of the examples such as 0.5, or a file of others.
holdout: auto                 # leave-one-out for fewer than ten examples, otherwise half of them
template: auto                # chat: by the model's chat template; plain: as text; auto: chat if it has one

method: exact                 # exact: sum of w * B A, any ranks; lorahub: (sum w B)(sum w A), equal ranks only
objective: loss               # loss: nats a token; exact_match: greedy answers; choice: among an example's "choices"

optimizer:
  name: {DEFAULT_OPTIMIZER}
{_OPTIMIZERS}
  budget: 40                  # candidates to try, after the baselines
  seed: 0
  bounds: [-1.5, 1.5]         # of every weight
  l1: 0.05                    # penalty: nats per unit of the mean absolute weight
  start: best                 # best: at the best baseline; zero: as in the LoRAHub paper
  early_stop: true            # give a candidate up as soon as it cannot become the best
  halving: false              # score only the better half of each population on all examples
  break_symmetry: true        # lorahub: w and -w are the same, so search one half

# Who scores: torch loads the model here; server asks a running LoraLoom, without a second copy of the model.
scorer: torch
server:
  url: http://127.0.0.1:8000
  concurrency: 16             # requests at once
  timeout: 120                # seconds that one may take
  patience: 60                # seconds without any answer until the job ends as interrupted

publish:
  when: if_better             # if_better: only with the verdict "better"; always; never
  tag: null                   # a tag to move to the new version
  rank: auto                  # truncate to this rank, and judge what is left; auto: 64, which servers make room for
threads: null                 # that torch computes on; null: one a processor
"""


def write_template(path: Path) -> None:
    """Write the commented job, where there is no file yet; raises `InvalidSpec`, `OSError`."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        raise InvalidSpec(f"{path} is there already: give another name, or remove it") from None
