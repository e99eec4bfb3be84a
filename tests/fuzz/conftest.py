"""The gate of the server's own tests, over a store of tiny adapters."""

from tests.server.conftest import build_gate, engine, gate, publish, served_base, store

__all__ = ["build_gate", "engine", "gate", "publish", "served_base", "store"]
