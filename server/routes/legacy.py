"""vLLM's own calls to load and unload an adapter, mapped onto the store."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from loraloom.server.routes.adapters import announced, publish_source, remove
from loraloom.server.routes.gated import Gated, GatedRoute, Seen
from loraloom.server.routes.upload import Publication

router = APIRouter(route_class=GatedRoute, tags=["vLLM"])


class Load(BaseModel, frozen=True):
    """vLLM's request to load an adapter; further fields of it are ignored."""

    lora_name: str
    lora_path: str


class Unload(BaseModel, frozen=True):
    """vLLM's request to unload an adapter; further fields of it are ignored."""

    lora_name: str


@router.post("/v1/load_lora_adapter")
async def load(request: Load, gate: Gated, seen: Seen) -> PlainTextResponse:
    """Publish the adapter at a path; loading the same content again changes nothing."""
    publication = Publication(name=request.lora_name)
    published = await gate.work.do(publish_source, gate, seen, request.lora_path, publication)
    await announced(published, gate)
    return PlainTextResponse(f"Success: LoRA adapter '{request.lora_name}' added successfully.")


@router.post("/v1/unload_lora_adapter")
async def unload(request: Unload, gate: Gated, seen: Seen) -> PlainTextResponse:
    """Remove every version of the adapter, and free the engine's copies."""
    await remove(gate, seen, request.lora_name, None)
    return PlainTextResponse(f"Success: LoRA adapter '{request.lora_name}' removed successfully.")
