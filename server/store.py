"""Where the settings say that the adapters are."""

from loraloom.adapters.store import Store
from loraloom.server.settings import Settings


def open_store(settings: Settings, *, create: bool = True) -> Store:
    """The store of these settings, with its cache on this machine.

    Raises:
        StoreError: it cannot be used, or there is none and `create` is False.
    """
    return Store.open(
        settings.adapters, cache=settings.cache / "blobs", cache_bytes=settings.cache_bytes, create=create
    )
