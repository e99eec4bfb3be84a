"""GET /ready: whether a request would be served now."""

from fastapi import APIRouter

from loraloom.server.errors import EngineUnavailable
from loraloom.server.routes.gated import Gated, GatedRoute

router = APIRouter(route_class=GatedRoute, tags=["LoraLoom"])


@router.get("/ready")
async def ready(gate: Gated) -> dict[str, str]:
    """200 when the engine runs and the store can be read; 503 otherwise."""
    if gate.engine.dead:
        raise EngineUnavailable("the engine has stopped; it is being restarted")
    await gate.looks.take(gate.store.check_readable)
    return {"status": "ready", "model": gate.base.name}
