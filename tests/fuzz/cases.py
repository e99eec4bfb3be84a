"""How many cases a property gets, how they are drawn, and what ends one that hangs or takes all memory.

`make test` runs a few, always the same. `make fuzz` sets FUZZ_CASES, which is what the properties of one file get
together, and draws others each time.
"""

import contextlib
import faulthandler
import functools
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings

SHORT = 660
"""Cases of one file in `make test`: 2,000 in three files."""
HANG = 60.0
"""Seconds after which a case hangs, and the process ends and says where."""
ROOM = 2**30
"""Bytes that a case may take beside what the process has. Threads and tensor libraries map some for later."""

Check = TypeVar("Check", bound=Callable[..., Any])


def asked() -> int | None:
    """The cases of one file in the long form; None in the short one."""
    given = os.environ.get("FUZZ_CASES")
    return None if given is None else int(given)


def fuzzed(share: float) -> Callable[[Check], Check]:
    """Decorates a property, outside of `given`: its share of the file's cases, with a watch on each."""
    cases = asked()
    chosen = settings(
        max_examples=max(1, round(share * (cases or SHORT))),
        derandomize=cases is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        print_blob=True,
    )
    return lambda check: chosen(check)


def watched(check: Check) -> Check:
    """Decorates a property, inside of `given`: a case that hangs ends the long form's process, with a traceback."""
    if asked() is None:
        return check

    @functools.wraps(check)
    def timed(*arguments: Any, **named: Any) -> Any:
        faulthandler.dump_traceback_later(HANG, exit=True)
        try:
            return check(*arguments, **named)
        finally:
            faulthandler.cancel_dump_traceback_later()

    return timed  # type: ignore[return-value]


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Whatever takes more than `ROOM` gets a MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
