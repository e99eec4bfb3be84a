"""What whoever asks may do: the one value that every check of permission looks at."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import IntEnum

from loraloom.server.access.patterns import EVERYTHING, Patterns

ANONYMOUS = "anonymous"
"""What everybody is called where there are no keys."""


class Role(IntEnum):
    """What a key is for; each of the last three includes those before it, but not `MONITOR`."""

    MONITOR = 0
    """Read the metrics, and nothing else."""
    INFER = 1
    """Use adapters, and look at them."""
    PUBLISH = 2
    """Publish adapters, move tags, remove, and run jobs."""
    ADMIN = 3
    """Everything on every path that is open."""

    @property
    def word(self) -> str:
        """How people write it."""
        return self.name.lower()


@dataclass(frozen=True)
class Quota:
    """How much one key may ask for; None is without limit.

    Attributes:
        rpm: requests per minute.
        tpm: tokens per minute, those of prompts and of answers together.
        concurrency: requests at a time.
    """

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True)
class Access:
    """Who asks, and what they may.

    Attributes:
        key: the key's name; it is in metrics, logs and the ledger.
        role: what the key is for.
        adapters: the names that it sees. All others do not exist for it.
        publish: the names under which it may publish, tag and remove; it sees these too.
        sources: prefixes that it may publish from, among those of the server; None: all of those.
        quota: how much it may ask for.
        background: it asks for a job: everybody else comes first.
        since: when the key was created: a name that was revoked can be given to another key.
    """

    key: str
    role: Role
    adapters: Patterns = EVERYTHING
    publish: Patterns = EVERYTHING
    sources: tuple[str, ...] | None = None
    quota: Quota = Quota()
    background: bool = False
    since: str = ""

    @property
    def owner(self) -> str:
        """What its jobs and its part of the prefix cache are kept under: not its name alone, which another can get."""
        return f"{self.key}@{self.since}" if self.since else self.key

    @property
    def all(self) -> bool:
        """Whether there is nothing that it does not see."""
        return self.adapters == EVERYTHING

    def has(self, role: Role) -> bool:
        """Whether it may do what takes a role; every key but those of a higher role has `INFER`."""
        return self.role >= role if role is not Role.MONITOR else self.role in (Role.MONITOR, Role.ADMIN)

    def sees(self, name: str) -> bool:
        """Whether an adapter exists for it."""
        return self.adapters.match(name) or (self.role >= Role.PUBLISH and self.publish.match(name))

    def may_see(self, folded: str) -> bool:
        """Whether it may see an adapter whose name is this in lower case."""
        return self.adapters.match_folded(folded) or self.publish.match_folded(folded)

    def may_publish(self, name: str) -> bool:
        """Whether it may publish, tag and remove under a name."""
        return self.role >= Role.PUBLISH and self.publish.match(name)

    def for_a_job(self, names: Collection[str]) -> "Access":
        """What a job of theirs may do with the server: infer, with these adapters, after everybody else."""
        seen = Patterns(tuple(name for name in names if self.sees(name)))
        return replace(self, role=Role.INFER, adapters=seen, publish=Patterns(()), background=True)


NOBODY = Access("nobody", Role.MONITOR, Patterns(()), Patterns(()))
"""Whoever has not been looked at yet."""
ANYONE = Access(ANONYMOUS, Role.ADMIN)
"""Everybody, on a server without keys: which is why such a server listens to its own machine only."""
