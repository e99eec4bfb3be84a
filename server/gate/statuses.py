"""The one table from errors to HTTP, and the shape that OpenAI's clients expect."""

import math
from dataclasses import dataclass

from pydantic_core import to_json

from loraloom.adapters import errors as adapters
from loraloom.compose import errors as compose
from loraloom.server import errors as server
from loraloom.server.gate.exchange import Send


@dataclass(frozen=True)
class Status:
    """How an error is told.

    Attributes:
        http: the status code.
        code: a word that programs can act on.
        retry_after: seconds after which trying again makes sense; None where it does not.
        public: what clients are told, where the error itself is for the log: it may name folders of the server's.
    """

    http: int
    code: str
    retry_after: int | None = None
    public: str | None = None

    @property
    def type(self) -> str:
        """OpenAI's error type."""
        return "server_error" if self.http >= 500 else "invalid_request_error"


STORE = "the store of adapters cannot be used now: try again later. The server's log has the reason"

OFFLINE = (
    "it could not be converted or mixed here: do it on another machine, with `loraloom adapters add` or "
    "`loraloom adapters mix`. The server's log has the reason"
)
BASE = "the base model's own files cannot be used for this here: tell whoever runs the server, whose log has the reason"
JOB = "the job's files cannot be read: start it anew. The server's log has the details"

STATUSES: dict[type[Exception], Status] = {
    adapters.InvalidName: Status(400, "invalid_model"),
    adapters.AdapterNotFound: Status(404, "model_not_found"),
    adapters.NameTaken: Status(409, "name_taken"),
    adapters.InvalidAdapter: Status(400, "invalid_adapter"),
    adapters.BaseMismatch: Status(400, "base_mismatch"),
    adapters.InvalidMixture: Status(400, "invalid_mixture"),
    adapters.InvalidBase: Status(500, "base_unreadable", public=BASE),
    adapters.SourceError: Status(400, "source_unreachable"),
    adapters.DamagedBlob: Status(500, "adapter_damaged"),
    adapters.DamagedRecord: Status(500, "record_damaged", public="a record of the store is damaged: see the log"),
    adapters.StoreError: Status(503, "store_unavailable", retry_after=5, public=STORE),
    server.EngineUnavailable: Status(503, "engine_unavailable", retry_after=5),
    server.OfflineFailed: Status(500, "offline_failed", public=OFFLINE),
    server.Unauthenticated: Status(401, "invalid_api_key"),
    server.Forbidden: Status(403, "insufficient_permissions"),
    server.LimitExceeded: Status(429, "rate_limit_exceeded"),
    server.QueueFull: Status(503, "overloaded", retry_after=5),
    server.Draining: Status(503, "stopping", retry_after=10),
    server.PathClosed: Status(404, "path_closed"),
    server.MethodNotOpen: Status(405, "method_not_open"),
    server.HeaderRefused: Status(400, "header_refused"),
    server.BodyTooLarge: Status(413, "body_too_large"),
    server.BodyTooSlow: Status(408, "body_too_slow"),
    server.WrongContentType: Status(415, "wrong_content_type"),
    server.InvalidBody: Status(400, "invalid_body"),
    server.NotServed: Status(400, "not_available"),
    server.InvalidAlpha: Status(400, "invalid_alpha"),
    server.RankTooHigh: Status(400, "rank_too_high"),
    server.TooManyAdapters: Status(503, "too_many_adapters", retry_after=1),
    server.MixturesBusy: Status(503, "mixtures_busy", retry_after=5),
    server.OfflineBusy: Status(503, "offline_busy", retry_after=30),
    server.TooManyJobs: Status(503, "too_many_jobs", retry_after=60),
    server.JobsUnwritable: Status(503, "jobs_unwritable", retry_after=60),
    server.AdapterNotLoaded: Status(400, "adapter_not_loaded"),
    compose.InvalidSpec: Status(400, "invalid_job"),
    compose.InvalidExamples: Status(400, "invalid_examples"),
    compose.InvalidPool: Status(400, "invalid_pool"),
    compose.JobNotFound: Status(404, "job_not_found"),
    compose.JobBusy: Status(409, "job_busy"),
    compose.DamagedJob: Status(500, "job_damaged", public=JOB),
}
UNEXPECTED = Status(500, "internal_error", public="internal error: the server's log has the details")


def status_of(error: Exception) -> Status:
    """The entry of the nearest class that the table knows."""
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), UNEXPECTED)


def error_body(error: Exception, status: Status) -> dict[str, object]:
    """The error as OpenAI shapes it."""
    message = status.public or str(error)
    param = getattr(error, "param", None)
    if param is None and isinstance(error, (adapters.InvalidName, adapters.AdapterNotFound, adapters.InvalidMixture)):
        param = "model"
    return {"error": {"message": message, "type": status.type, "param": param, "code": status.code}}


def error_headers(error: Exception, status: Status) -> dict[str, str]:
    """What the headers of an answer say about an error: when to come again, or that it is no use."""
    headers = {}
    retry_after = error.retry_after if isinstance(error, server.LimitExceeded) else status.retry_after
    if retry_after is not None:
        headers["retry-after"] = str(math.ceil(retry_after))
    elif status.http == 429 or (status.http >= 500 and status is not UNEXPECTED):
        headers["x-should-retry"] = "false"  # OpenAI's clients repeat whatever is 500 otherwise
    if status.http == 401:
        headers["www-authenticate"] = "Bearer"
    return headers


async def send_error(send: Send, error: Exception) -> None:
    """Answer a request with an error."""
    status = status_of(error)
    raw = to_json(error_body(error, status))
    told = {"content-type": "application/json", "content-length": str(len(raw)), **error_headers(error, status)}
    headers = [(name.encode(), value.encode()) for name, value in told.items()]
    await send({"type": "http.response.start", "status": status.http, "headers": headers})
    await send({"type": "http.response.body", "body": raw})
