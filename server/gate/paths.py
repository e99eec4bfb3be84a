"""Which paths are open. All others of the engine's server are closed: new versions of it add paths without asking."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from loraloom.server.access.access import Role
from loraloom.server.errors import MethodNotOpen, PathClosed


class Kind(Enum):
    """What the gate does with a request to an opened path."""

    GENERATE = "generate"
    """The body names a model, and the engine computes: resolve it, rewrite it, wait for a turn, hold a lease."""
    SELECT = "select"
    """The same without the engine, as for counting tokens: a turn is waited for only where an adapter is selected."""
    UPLOAD = "upload"
    """The body may be an adapter: its bytes are counted, never gathered."""
    PLAIN = "plain"
    """Nothing to select."""


@dataclass(frozen=True)
class Route:
    """An opened path.

    Attributes:
        pattern: the path; `{name}` stands for anything, slashes included.
        methods: the opened methods.
        kind: what the gate does with it.
        reading, writing: the role that a key needs to read (GET, HEAD) and to do anything else; None is no key at all.
    """

    pattern: str
    methods: frozenset[str]
    kind: Kind
    reading: Role | None
    writing: Role | None

    @property
    def selects(self) -> bool:
        """Whether the body names a model."""
        return self.kind in (Kind.GENERATE, Kind.SELECT)

    def role(self, method: str) -> Role | None:
        """What a method takes; browsers ask by OPTIONS, without a key, whether they may ask (see `is_preflight`)."""
        if method == "OPTIONS":
            return None
        return self.reading if method in ("GET", "HEAD") else self.writing

    def matches(self, path: str) -> bool:
        """Whether this is the route of a path."""
        return re.fullmatch(re.sub(r"\\\{\w+\\\}", "(.+)", re.escape(self.pattern)), path) is not None


def _route(
    methods: str,
    pattern: str,
    kind: Kind = Kind.PLAIN,
    reading: Role | None = Role.INFER,
    writing: Role | None = Role.PUBLISH,
) -> Route:
    return Route(pattern, frozenset(methods.split()), kind, reading, writing)


def _using(pattern: str, kind: Kind = Kind.GENERATE) -> Route:
    return _route("POST", pattern, kind, writing=Role.INFER)


METRICS = "/metrics"
OPEN = (
    _using("/v1/chat/completions"),
    _using("/v1/completions"),
    _using("/v1/responses"),
    _using("/v1/messages"),
    _using("/v1/messages/count_tokens", Kind.SELECT),
    _using("/tokenize", Kind.SELECT),
    _using("/detokenize", Kind.SELECT),
    _route("GET HEAD", "/health", reading=None),
    _route("GET HEAD", "/ready", reading=None),
    _route("GET HEAD", "/version"),
    _route("GET HEAD", METRICS, reading=Role.MONITOR),
    _route("GET HEAD", "/v1/models"),
    _route("GET HEAD", "/v1/models/{name}"),
    _route("GET POST HEAD", "/v1/adapters", Kind.UPLOAD),
    _route("GET HEAD DELETE PUT", "/v1/adapters/{name}"),
    _route("POST", "/v1/mixtures", writing=Role.INFER),
    _route("GET HEAD POST", "/v1/compose/jobs", reading=Role.PUBLISH),
    _route("POST", "/v1/compose/jobs/{id}/cancel"),
    _route("POST", "/v1/compose/jobs/{id}/resume"),
    _route("GET HEAD", "/v1/compose/jobs/{id}", reading=Role.PUBLISH),
    _route("POST", "/v1/load_lora_adapter"),
    _route("POST", "/v1/unload_lora_adapter"),
)
"""What is open without a setting. (A mixture that is published takes more: its route sees to that.)"""


class OpenPaths:
    """The table of opened paths: exact ones by dictionary, those with a name in them by pattern."""

    def __init__(self, further: Iterable[str] = ()) -> None:
        """
        Args:
            further: more paths of the engine's server to open to administrators, for every method, as they are; one
                of the table's own stays as it is there.
        """
        every, admin = "GET HEAD POST PUT DELETE", Role.ADMIN
        routes = [*OPEN, *(_route(every, path, reading=admin, writing=admin) for path in further)]
        self._exact = {route.pattern: route for route in reversed(routes) if "{" not in route.pattern}
        self._patterns = [route for route in routes if "{" in route.pattern]

    def find(self, method: str, path: str) -> Route:
        """The route of a request.

        Raises:
            PathClosed: the path is not open.
            MethodNotOpen: the path is, the method is not.
        """
        route = self._exact.get(path) or next((r for r in self._patterns if r.matches(path)), None)
        if route is None:
            raise PathClosed(f"{path[:200]} is not open on this server; an administrator opens paths with `open_paths`")
        if method not in route.methods and method != "OPTIONS":
            raise MethodNotOpen(f"{route.pattern} takes {', '.join(sorted(route.methods))}, not {method}")
        return route
