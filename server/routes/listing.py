"""Lists of adapters: one that cannot be read hides itself, and no others."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from loraloom.adapters.errors import AdapterNotFound, DamagedRecord

log = logging.getLogger("vllm.loraloom.routes")


@contextmanager
def passing_over(name: str) -> Iterator[None]:
    """The block adds one name to a list, and ends early where it was removed meanwhile or its records are damaged."""
    try:
        yield
    except AdapterNotFound:
        pass
    except DamagedRecord as error:
        _tell(name, str(error))


@lru_cache(maxsize=1024)  # lists are asked for again and again
def _tell(name: str, problem: str) -> None:
    log.error("the adapter %r is left out of lists: %s", name, problem)
