"""Facts: what was measured of a normal form, once, beside it. Nothing needs them to serve.

facts/<digest>/update.json        how large the update is; by whoever publishes
facts/<digest>/conversion.json    how well another kind of adapter was turned into this one; likewise
facts/<digest>/effect.json        how far it moves the served base's answers; by a server
"""

import json
import math
import re
import statistics
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.normal import Normal
from loraloom.adapters.store.objects import Objects
from loraloom.adapters.store.records import Finding

Fact: TypeAlias = Mapping[str, object]
"""One JSON object."""

_KIND = re.compile(r"[a-z_]+")


class Facts:
    """The facts of a store. Each is created once; there is none of the same kind and digest after it."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def of(self, digest: str) -> dict[str, Fact]:
        """What is known of a normal form, by kind; damaged facts are left out."""
        read = {kind: self._read(path) for kind, path in self._paths(digest)}
        return {kind: fact for kind, fact in read.items() if fact is not None}

    def note(self, digest: str, kind: str, value: Fact) -> bool:
        """Write down a fact. False: there is one of this kind, and it stays."""
        assert _KIND.fullmatch(kind), "a kind is a word of small letters"
        path = f"facts/{digest}/{kind}.json"
        if f"{kind}.json" in self._objects.list(f"facts/{digest}"):
            return False
        return self._objects.create(path, json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")

    def damaged(self, digest: str) -> Iterator[Finding]:
        """The facts that cannot be read."""
        for _, path in self._paths(digest):
            if self._read(path) is None:
                yield Finding("fact", path, "it is not a JSON object: remove this file, and it can be measured again")

    def _paths(self, digest: str) -> Iterator[tuple[str, str]]:
        for name in sorted(self._objects.list(f"facts/{digest}")):
            kind, ending = name.removesuffix(".json"), name[-5:]
            if ending == ".json" and _KIND.fullmatch(kind):
                yield kind, f"facts/{digest}/{name}"

    def _read(self, path: str) -> Fact | None:
        try:
            value = json.loads(self._objects.read(path) or b"")
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


def update_of(normal: Normal, base: BaseFingerprint | None) -> Fact:
    """The fact "update": how many modules an adapter changes, and by how much.

    Args:
        base: the base in which all its modules were found; None when none was looked at.

    Returns:
        "modules", their number; "rank", the largest; "norm", the Frobenius norm of all updates together; "min",
        "median" and "max", of one module's update; "zero", the paths of the modules whose update is zero; and with a
        base "matched", the number of modules found in it.
    """
    norms = normal.norms
    fact: dict[str, object] = {
        "modules": len(norms),
        "rank": normal.manifest.rank,
        "norm": math.hypot(*norms.values()),
        "min": min(norms.values()),
        "median": statistics.median(norms.values()),
        "max": max(norms.values()),
        "zero": sorted(path for path, norm in norms.items() if norm == 0),
    }
    return fact if base is None else fact | {"matched": len(norms)}
