"""LoraLoom's own HTTP routes; the OpenAI surface is vLLM's."""

from fastapi import APIRouter

from loraloom.server.routes import adapters, health, legacy, mixtures, models


def routers() -> list[APIRouter]:
    """Every router of ours."""
    return [health.router, models.router, adapters.router, mixtures.router, legacy.router]
