"""`loraloom compose demo`: a job of the demo's, from nothing to its report."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from loraloom.adapters.store import Store
from loraloom.compose.errors import JobNotFound
from loraloom.compose.plan import with_examples
from loraloom.compose.spec import read_spec
from loraloom.demo.catalog import demo_jobs
from loraloom.demo.model import DemoModelError, prepare
from loraloom.server.cli.compose import run_spec
from loraloom.server.cli.demo import fill
from loraloom.server.cli.options import configured
from loraloom.server.errors import ServerError
from loraloom.server.settings import cache_home


def demo(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Prepare the model and the store, and run the job."""
    spec = with_examples(read_spec(_found(options.name)))
    try:
        model = prepare()
    except DemoModelError as error:
        raise ServerError(str(error)) from error
    store = Store.open(options.adapters or str(cache_home() / "demo/store"))
    fill(store, model)
    return run_spec(spec.model_copy(update={"base": str(model)}), store, configured(options).settings.jobs)


def _found(name: str) -> Path:
    jobs = demo_jobs()
    if name not in jobs:
        raise JobNotFound(f"the demo has no job {name!r}; it has {', '.join(jobs)}")
    return jobs[name]
