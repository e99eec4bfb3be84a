"""Which paths are open. All others of the engine's server are closed: new versions of it add paths without asking."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from loraloom.server.errors import MethodNotOpen, PathClosed


class Kind(Enum):
    """What the gate does with a request to an opened path."""

    SELECT = "select"
    """The body names a model: resolve it, rewrite it, hold a lease."""
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
    """

    pattern: str
    methods: frozenset[str]
    kind: Kind

    def matches(self, path: str) -> bool:
        """Whether this is the route of a path."""
        return re.fullmatch(re.sub(r"\\\{\w+\\\}", "(.+)", re.escape(self.pattern)), path) is not None


def _route(methods: str, pattern: str, kind: Kind = Kind.PLAIN) -> Route:
    return Route(pattern, frozenset(methods.split()), kind)


OPEN = (
    _route("POST", "/v1/chat/completions", Kind.SELECT),
    _route("POST", "/v1/completions", Kind.SELECT),
    _route("POST", "/v1/responses", Kind.SELECT),
    _route("POST", "/v1/messages", Kind.SELECT),
    _route("POST", "/v1/messages/count_tokens", Kind.SELECT),
    _route("POST", "/tokenize", Kind.SELECT),
    _route("POST", "/detokenize", Kind.SELECT),
    _route("GET HEAD", "/health"),
    _route("GET HEAD", "/ready"),
    _route("GET HEAD", "/version"),
    _route("GET HEAD", "/metrics"),
    _route("GET HEAD", "/v1/models"),
    _route("GET HEAD", "/v1/models/{name}"),
    _route("GET POST HEAD", "/v1/adapters", Kind.UPLOAD),
    _route("GET HEAD DELETE PUT", "/v1/adapters/{name}"),
    _route("POST", "/v1/mixtures"),
    _route("GET HEAD POST", "/v1/compose/jobs"),
    _route("POST", "/v1/compose/jobs/{id}/cancel"),
    _route("POST", "/v1/compose/jobs/{id}/resume"),
    _route("GET HEAD", "/v1/compose/jobs/{id}"),
    _route("POST", "/v1/load_lora_adapter"),
    _route("POST", "/v1/unload_lora_adapter"),
)
"""What is open without a setting."""


class OpenPaths:
    """The table of opened paths: exact ones by dictionary, those with a name in them by pattern."""

    def __init__(self, further: Iterable[str] = ()) -> None:
        """
        Args:
            further: more paths of the engine's server to open, for every method, as they are; one of the table's own
                stays as it is there.
        """
        routes = [*OPEN, *(_route("GET HEAD POST PUT DELETE", path) for path in further)]
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
