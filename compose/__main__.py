"""`python -m loraloom.compose FOLDER`: run one job, or go on with it, in this process.

Exits with 0 when it is done, 1 when it cannot be done, and 3 when it was interrupted or cancelled and can be resumed.
"""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from loraloom.adapters.errors import AdapterError
from loraloom.adapters.store import Store
from loraloom.compose.errors import ComposeError, Interrupted
from loraloom.compose.jobs import Job
from loraloom.compose.run import run
from loraloom.compose.spec import KEY

DONE, FAILED, INTERRUPTED = 0, 1, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loraloom.compose", description="Run one job.")
    parser.add_argument("folder", type=Path, help="the job's folder")
    parser.add_argument("--cache", type=Path, help="folder for the cache of a remote store")
    parser.add_argument("--by", help="who publishes the composition")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        job = Job(given.folder)
        result = run(job, Store.open(job.store, cache=given.cache, create=False), by=given.by, key=os.environ.get(KEY))
    except Interrupted as error:
        print(f"interrupted: {error}", file=sys.stderr)
        return INTERRUPTED
    except (ComposeError, AdapterError, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return FAILED
    except Exception:
        # Caught, since nevergrad's Cobyla has a thread that an uncaught error would keep alive.
        traceback.print_exc()
        return FAILED
    print(f"{result.verdict}: {result.publication}")
    return DONE


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
