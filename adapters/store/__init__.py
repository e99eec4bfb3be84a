"""The store: where adapters are kept, with their versions and tags."""

from loraloom.adapters.store.store import Store

__all__ = ["Store"]
