"""What only this server may say to the engine: clients' words on it are dropped, and its own put in their place.

The engine's server trusts whoever reaches it. Left in, these would let one client overtake the others, take over
another's running request by its id, or find out by the time that an answer takes what others have asked before.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from loraloom.server.access.access import ANONYMOUS, Access
from loraloom.server.errors import HeaderRefused, InvalidBody, NotServed
from loraloom.server.gate.exchange import Choice, Exchange, Scope
from loraloom.server.gate.media import check_media, keep_apart
from loraloom.server.lax import flag

FOREIGN_SELECTORS = (b"x-amzn-sagemaker-adapter-identifier", b"x-amzn-sagemaker-adapter-alias")
"""Headers by which the engine's server would let a request choose an adapter after it has passed the gate."""

DROPPED_HEADERS = frozenset(
    (
        b"authorization",
        b"x-api-key",
        b"x-request-id",
        b"x-vllm-priority",
        b"x-session-id",
        b"x-data-parallel-rank",
        b"endpoint-load-metrics-format",
        b"x-amzn-sagemaker-session-id",
    )
)
"""Keys, which the engine has no business with, and what would tell it how to treat the request."""

SELECTING = ("adapter", "adapter_id", "merged_adapters", "adapter_source")
"""Body fields of ours, and of LoRAX, that select an adapter."""

DROPPED_FIELDS = frozenset(
    (
        *SELECTING,
        "priority",
        "request_id",
        "session_id",
        "cache_salt",
        "kv_transfer_params",
        "ec_transfer_params",
        "mm_payload",
        "return_mm_kwargs",
        "stream_interval",
    )
)
"""Body fields that do not reach the engine as they are."""

DROPPED_ARGUMENTS = DROPPED_FIELDS | {"kv_cache_report_mode"}
"""What `vllm_xargs` cannot say either: it takes a second way to the same place."""

LAST = 100
"""The engine's priority of what comes after everybody else: it computes smaller numbers first, and 0 is the others'."""
FLEX = "flex"
"""OpenAI's word for a request that can wait, in the field `service_tier`."""


def check_selectors(exchange: Exchange) -> None:
    """Refuse headers that choose an adapter behind the gate; raises `HeaderRefused`."""
    for header in FOREIGN_SELECTORS:
        if exchange.header(header) is not None:
            raise HeaderRefused(f"choose the adapter by the field `model`, not by the header {header.decode()}")


def without_privileges(scope: Scope, id: str) -> Scope:
    """The scope as the engine's server gets it: no key, no wish of the client's, and the request's own id."""
    kept = [(key, value) for key, value in scope["headers"] if key not in DROPPED_HEADERS]
    return {**scope, "headers": [*kept, (b"x-request-id", id.encode())]}


def check_fields(body: dict[str, Any], access: Access) -> None:
    """Refuse what this server does not let a request ask for.

    Raises:
        NotServed: an answer in the background, one that goes on from a stored answer, which could be anybody's, media
            that would have to be fetched, or beams that others do not come before.
        InvalidBody: a salt that is no text.
    """
    if body.get("background"):
        raise NotServed("responses in the background are not available on this server", param="background")
    if access.key != ANONYMOUS:
        check_media(body)
    if body.get("previous_response_id") is not None and access.key != ANONYMOUS:
        raise NotServed(
            "answers are not kept for later on this server: send what was said before in `input`",
            param="previous_response_id",
        )
    if flag(body.get("use_beam_search")) and can_wait(body, access):
        raise NotServed(
            "beam search cannot wait for others: vLLM computes its beams as everybody else's requests",
            "use_beam_search",
        )
    if not isinstance(body.get("cache_salt") or "", str):
        raise InvalidBody("`cache_salt` must be a string", param="cache_salt")


def can_wait(body: Mapping[str, Any], access: Access) -> bool:
    """Whether everybody else's requests come first: a job's do, and those that say so."""
    return access.background or body.get("service_tier") == FLEX


def for_the_engine(body: dict[str, Any], choice: Choice, access: Access, *, share_cache: bool) -> dict[str, Any]:
    """The body as the engine's server gets it: the canonical name, no field of ours, and what only we may say.

    Args:
        body: as the client sent it.
        choice: what it selected.
        access: who asks.
        share_cache: let the prefix cache answer one key with what it computed for another.
    """
    kept = {key: value for key, value in body.items() if key not in DROPPED_FIELDS} | {"model": choice.model}
    if access.key != ANONYMOUS:
        keep_apart(kept, lambda uuid: str(_salt(uuid, access, share_cache)))
    if salt := _salt(body.get("cache_salt"), access, share_cache):
        kept["cache_salt"] = salt
    if can_wait(body, access):
        kept["priority"] = LAST
    if isinstance(further := kept.get("vllm_xargs"), dict):
        kept["vllm_xargs"] = {key: value for key, value in further.items() if key not in DROPPED_ARGUMENTS}
    return kept


def _salt(given: str | None, access: Access, share_cache: bool) -> str | None:
    """One of the key's own, whatever the client adds to it: hashed, so that no salt leads into another key's blocks."""
    owner = "" if share_cache or access.key == ANONYMOUS else access.owner
    if not owner and not given:
        return None
    return blake2b(f"{owner}\0{given or ''}".encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()
