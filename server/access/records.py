"""What is written down of a key: what it may do, and the hashes of its secrets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from loraloom.adapters.store.records import Record
from loraloom.server.access.access import Access, Quota, Role
from loraloom.server.access.moments import moment_of
from loraloom.server.access.patterns import Patterns
from loraloom.server.access.secret import Stored
from loraloom.server.errors import InvalidSettings

ROLES = tuple(role.word for role in Role)

Action: TypeAlias = Literal["create", "update", "rotate", "revoke"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a key may do, and for how long; terms that contradict each other or mean nothing cannot be built.

    Attributes:
        role: one of `ROLES`.
        adapters: patterns of the names that it sees.
        publish: patterns of the names under which it may publish, if its role lets it; None: the same as `adapters`.
        sources: prefixes that it may publish from, among those of the server; None: all of those.
        rpm, tpm, concurrency: as in `Quota`.
        expires: UTC, ISO 8601; None: never.
    """

    role: str = Role.INFER.word
    adapters: tuple[str, ...] = ()
    publish: tuple[str, ...] | None = None
    sources: tuple[str, ...] | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    expires: str | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InvalidSettings(f"{self.role!r} is no role: there are {', '.join(ROLES)}")
        for name in ("adapters", "publish"):
            Patterns(_texts(name, getattr(self, name) or ()))
        _texts("sources", self.sources or ())
        for name in ("rpm", "tpm", "concurrency"):
            _check_limit(name, getattr(self, name))
        if self.expires is not None:
            moment_of(self.expires)

    @property
    def may_publish(self) -> bool:
        """Whether the role lets it publish at all."""
        return Role[self.role.upper()] >= Role.PUBLISH

    def access(self, key: str, since: str) -> Access:
        """What the key of this name may do, which was created then."""
        publish = self.adapters if self.publish is None else self.publish
        return Access(
            key=key,
            role=Role[self.role.upper()],
            adapters=Patterns(self.adapters),
            publish=Patterns(publish if self.may_publish else ()),
            sources=self.sources,
            quota=Quota(self.rpm, self.tpm, self.concurrency),
            since=since,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord(Record):
    """All of a key after one change; the record with the highest number counts.

    Attributes:
        name: the key's.
        action: the change.
        by: who made it, if that has a name.
        since: when the key was created, UTC, ISO 8601; `created` is when this record was.
        terms: what it may do.
        secrets: those that can be sent, the latest first, and then those that it has replaced.
        revoked: nothing that it has been given is accepted any more.
    """

    name: str
    action: Action
    since: str
    terms: Terms
    secrets: tuple[Stored, ...]
    by: str | None = None
    revoked: bool = False

    def __post_init__(self) -> None:
        # As JSON has them. A field that this release does not know may be a restriction: then the record is refused.
        if isinstance(self.terms, dict):
            object.__setattr__(self, "terms", Terms(**_with_tuples(self.terms)))
        given = tuple(Stored(**each) if isinstance(each, dict) else each for each in self.secrets)
        object.__setattr__(self, "secrets", given)
        sound = isinstance(self.name, str) and isinstance(self.terms, Terms)
        if not (sound and given and all(isinstance(each, Stored) for each in given)):
            raise ValueError("it is no record of a key")
        for each in given:
            each.check()
            if each.until is not None:
                moment_of(each.until)

    @property
    def key(self) -> str:
        """The public id of its latest secret."""
        return self.secrets[0].id

    def public(self) -> dict[str, object]:
        """Everything that anybody may know of it, as JSON has it: no secret, and no hash of one."""
        terms = asdict(self.terms)
        return {"name": self.name, "id": self.key, **terms, "created": self.since, "revoked": self.revoked}

    @property
    def subject(self) -> dict[str, object]:
        """What the audit log says of this change."""
        terms = {name: value for name, value in asdict(self.terms).items() if value is not None}
        return {"name": self.name, "id": self.key, **(terms if self.action in ("create", "update") else {})}


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not (isinstance(value, tuple) and all(isinstance(each, str) and each for each in value)):
        raise InvalidSettings(f"{name} must be texts, none of them empty")
    return value


def _check_limit(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise InvalidSettings(f"{name} must be a whole number from 1, or none")


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
