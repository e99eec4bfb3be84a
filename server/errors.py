"""Every error that the server package raises by itself.

    ServerError
    ├── InvalidSettings    (ValueError)     a setting or an argument does not fit
    │   └── ProxyMismatch                   a small model that cannot steer the large one
    ├── EngineUnavailable  (RuntimeError)   the engine is starting, restarting or gone
    ├── Disconnected       (ConnectionError) the client has left: there is nobody to answer
    ├── OfflineFailed      (RuntimeError)   the process that converts or mixes adapters died
    └── RequestRefused     (ValueError)     a request that the gate does not let in
        ├── Unauthenticated                 no key, or none that is valid
        ├── Forbidden                       the key's role does not include this
        ├── LimitExceeded                   the key has used up what it may ask for in this time
        ├── QueueFull                       too many requests wait already, or this one has waited too long
        ├── Draining                        the server is about to stop
        ├── PathClosed                      the path is not opened on this server
        ├── MethodNotOpen                   the path is, this method of it is not
        ├── HeaderRefused                   a header that would choose an adapter behind the gate
        ├── BodyTooLarge                    more bytes than the server takes
        ├── BodyTooSlow                     no part of it came for too long
        ├── WrongContentType                not JSON where JSON is needed
        ├── InvalidBody                     not an object of JSON, or with fields that contradict
        ├── NotServed                       well-formed, but not available on this server
        ├── InvalidAlpha                    a proxy strength out of range, or with nothing to act on
        ├── RankTooHigh                     the adapter's rank exceeds the server's limit
        ├── TooManyAdapters                 no place for one more adapter within the time limit
        ├── MixturesBusy                    the mixture was not built within the time limit
        ├── OfflineBusy                     other work of its kind is being done, or memory is short
        ├── TooManyJobs                     as many jobs wait as may
        ├── JobsUnwritable                  a job cannot be written down
        └── AdapterNotLoaded                the engine cannot load the adapter

Each carries `param`, the request field it is about, where there is one. The HTTP status of each is in one table,
`gate/statuses.py`.
"""


class ServerError(Exception):
    """Base of every error of this package."""

    param: str | None = None


class InvalidSettings(ServerError, ValueError):
    """A setting or an argument does not fit."""


class ProxyMismatch(InvalidSettings):
    """Two models that proxy-tuning cannot put together, with every reason."""


class EngineUnavailable(ServerError, RuntimeError):
    """The engine is starting, restarting or gone; the request can be sent again later."""


class OfflineFailed(ServerError, RuntimeError):
    """The process that converts or mixes adapters died; nothing was published."""


class Disconnected(ServerError, ConnectionError):
    """The client has left, or takes nothing any more: there is nobody to answer."""


class RequestRefused(ServerError, ValueError):
    """A request that the gate does not let in."""

    def __init__(self, message: str, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


class Unauthenticated(RequestRefused):
    """No key, or none that is valid."""


class Forbidden(RequestRefused):
    """The key's role does not include this."""


class LimitExceeded(RequestRefused):
    """The key has used up what it may ask for in this time.

    Attributes:
        limit: which of its limits: "requests", "tokens" or "concurrency".
        retry_after: seconds after which the same request would be let in; None where it never would.
    """

    def __init__(self, message: str, limit: str, retry_after: float | None) -> None:
        self.limit = limit
        self.retry_after = retry_after
        super().__init__(message)


class QueueFull(RequestRefused):
    """Too many requests wait already, or this one has waited too long."""


class Draining(RequestRefused):
    """The server is about to stop; another, or the next one, will take the request."""


class PathClosed(RequestRefused):
    """The path is not opened on this server."""


class MethodNotOpen(RequestRefused):
    """The path is open, this method of it is not."""


class HeaderRefused(RequestRefused):
    """A header that would choose an adapter behind the gate's back."""


class BodyTooLarge(RequestRefused):
    """The body has more bytes than the server takes."""


class BodyTooSlow(RequestRefused):
    """The body does not arrive."""


class WrongContentType(RequestRefused):
    """The body is not of a type that this path takes."""


class InvalidBody(RequestRefused):
    """The body is not a JSON object, or its fields contradict each other."""


class NotServed(RequestRefused):
    """A well-formed selection of something that this server does not serve."""


class InvalidAlpha(RequestRefused):
    """A strength of proxy-tuning that is out of range, or that has nothing to act on."""

    def __init__(self, message: str) -> None:
        super().__init__(message, param="model")


class RankTooHigh(RequestRefused):
    """The adapter's rank exceeds the server's limit."""


class TooManyAdapters(RequestRefused):
    """Every place for an adapter in flight stayed taken for as long as a request may wait."""


class MixturesBusy(RequestRefused):
    """The mixture was not built for as long as a request may wait."""


class OfflineBusy(RequestRefused):
    """Another adapter is being converted or mixed, or there is not enough memory for it now."""


class TooManyJobs(RequestRefused):
    """As many jobs wait for their turn as may."""


class JobsUnwritable(RequestRefused):
    """A job cannot be written down: the disk is full, or the folder cannot be written."""


class AdapterNotLoaded(RequestRefused):
    """The engine cannot load the adapter into the model that it serves."""
