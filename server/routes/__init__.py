"""LoraLoom's own HTTP routes; the OpenAI surface is vLLM's."""

from fastapi import APIRouter

from loraloom.server.routes import adapters, compose, health, legacy, mixtures, models


def routers() -> list[APIRouter]:
    """Every router of ours."""
    return [health.router, models.router, adapters.router, mixtures.router, compose.router, legacy.router]
