"""vLLM's own calls to load and unload an adapter, mapped onto the store."""

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from loraloom.server.routes.adapters import remove
from loraloom.server.routes.gated import Gated, GatedRoute, Seen
from loraloom.server.routes.json_body import received
from loraloom.server.routes.publication import Publication, from_source
from loraloom.server.routes.versions import announced

router = APIRouter(route_class=GatedRoute, tags=["vLLM"])


class Load(BaseModel, frozen=True):
    """vLLM's request to load an adapter; further fields of it are ignored."""

    lora_name: str
    lora_path: str


class Unload(BaseModel, frozen=True):
    """vLLM's request to unload an adapter; further fields of it are ignored."""

    lora_name: str


@router.post("/v1/load_lora_adapter")
async def load(request: Request, gate: Gated, seen: Seen) -> PlainTextResponse:
    """Publish the adapter at a path; loading the same content again changes nothing."""
    wanted = await received(request, Load, "an object with `lora_name` and `lora_path`")
    published = await from_source(gate, seen, wanted.lora_path, Publication(name=wanted.lora_name))
    await announced(published, gate)
    return PlainTextResponse(f"Success: LoRA adapter '{wanted.lora_name}' added successfully.")


@router.post("/v1/unload_lora_adapter")
async def unload(request: Request, gate: Gated, seen: Seen) -> PlainTextResponse:
    """Remove every version of the adapter, and free the engine's copies."""
    wanted = await received(request, Unload, "an object with `lora_name`")
    await remove(gate, seen, wanted.lora_name, None)
    return PlainTextResponse(f"Success: LoRA adapter '{wanted.lora_name}' removed successfully.")
