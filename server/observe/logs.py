"""One line in the log for each request, as text or as JSON, and no secret in any line of any logger."""

import json
import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from loraloom.server.observe.account import Account

Format: TypeAlias = Literal["text", "json"]

log = logging.getLogger("vllm.loraloom.requests")

PROBES = frozenset({"/health", "/ready", "/metrics", "/version"})
"""Asked by machines every few seconds: told at level DEBUG, where they succeed."""

MASK = "***"
_SECRET = re.compile(
    r"(ll_[A-Za-z0-9]{1,64}_)[A-Za-z0-9_-]{20,}|(\bbearer\s{1,4})[A-Za-z0-9._~+/=-]{4,}", re.IGNORECASE
)


def tell(account: Account) -> None:
    """Log a request that has ended."""
    level = logging.DEBUG if account.path in PROBES and account.status < 400 else logging.INFO
    if log.isEnabledFor(level):
        fields = fields_of(account)
        log.log(level, "%s", _text(fields), extra={"fields": fields})


def fields_of(account: Account) -> dict[str, Any]:
    """What the log says of a request, times in seconds; what is not known or does not apply is left out."""
    fields: dict[str, Any] = {
        "id": account.id,
        "client_id": account.client_id or None,
        "key": account.access.key,
        "method": account.method,
        "path": account.path or None,
        "model": account.model or None,
        "status": account.status,
        "ending": account.ending,
        "code": account.code or None,
        "seconds": round(account.seconds, 4),
    }
    if account.model:
        fields |= {
            "prompt": account.prompt,
            "cached": account.cached,
            "output": account.output,
            "estimated": account.estimated or None,
            "first": None if account.first is None else round(account.first - account.began, 4),
            "edge": None if account.edge_queued is None else round(account.edge_queued, 4),
            "loading": None if account.loading is None else round(account.loading, 4),
            "engine": None if account.engine_queued is None else round(account.engine_queued, 4),
        }
    return {name: value for name, value in fields.items() if value is not None}


def _text(fields: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in fields.items())


class JsonLines(logging.Formatter):
    """A JSON object in one line: when, where, and the fields of a request, or a message."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        said = getattr(record, "fields", None) or {"message": record.getMessage()}
        line = {"time": time, "level": record.levelname, "logger": record.name, **said}
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = record.exc_text
        return json.dumps(line, ensure_ascii=False, default=str)


def write_requests_as(form: Format) -> None:
    """Choose how requests are logged: as text with vLLM's own lines, or as JSON, each a line by itself, on stdout."""
    log.propagate = form == "text"
    log.handlers.clear()
    if form == "json":
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(JsonLines())
        log.addHandler(handler)


def masked(text: str) -> str:
    """A text without keys: of each, only the part that is no secret stays."""
    lower = text.lower()
    if "ll_" not in lower and "bearer" not in lower:  # ten times as fast as the expression
        return text
    return _SECRET.sub(lambda found: f"{found[1] or found[2]}{MASK}", text)


def mask(record: logging.LogRecord) -> None:
    """Take secrets out of a record: its message, what is put into that, and its traceback."""
    if isinstance(record.args, tuple):  # one by one: uvicorn's formatter wants to have them all
        record.args = tuple(masked(arg) if isinstance(arg, str) else arg for arg in record.args)
    try:
        message = record.getMessage()
    except Exception:  # the handler will say so, with the line that is wrong
        return
    if (clean := masked(message)) != message:
        record.msg, record.args = clean, ()
    if record.exc_info and record.exc_info[0] is not None:
        trace = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if (clean := masked(trace)) != trace:
            record.exc_text = clean
    if record.stack_info:
        record.stack_info = masked(record.stack_info)


class _Masking:
    """Makes records as another factory does, and takes secrets out of them."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *args: Any, **named: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*args, **named)
        mask(record)
        return record


def mask_secrets() -> None:
    """Take secrets out of every record of this process from now on.

    Where records are made, and not by filters of handlers: uvicorn makes its handlers only after the server has been
    set up, and every logger may have one of its own.
    """
    make = logging.getLogRecordFactory()
    if not isinstance(make, _Masking):
        logging.setLogRecordFactory(_Masking(make))
