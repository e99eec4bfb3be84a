"""Which layout a store has, and whether its storage can keep writers apart."""

import json
import uuid

from loraloom.adapters.errors import StoreError
from loraloom.adapters.store.objects import MARK, Objects

LAYOUT = 1


def was_always_audited(objects: Objects) -> bool:
    """Whether the store has had an audit log from the beginning, so that no record is from before it."""
    try:
        return bool(json.loads(objects.read(MARK) or b"{}").get("audited"))
    except (ValueError, AttributeError):
        return False


def has_mark(objects: Objects) -> bool:
    """Whether anything was ever written to the store.

    Raises:
        StoreError: yes, but in a layout that this release does not know.
    """
    data = objects.read(MARK)
    if data is None:
        return False
    try:
        layout = json.loads(data)["layout"]
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{MARK} of the store {objects.url} is damaged: restore it from a backup") from error
    if layout != LAYOUT:
        raise StoreError(f"the store {objects.url} has layout {layout!r}: this release knows {LAYOUT}. Upgrade it")
    return True


def mark(objects: Objects) -> None:
    """Mark the store with its layout, and see that a second mark is refused.

    Some storages answer yes to every request to create an object, ignoring the condition that there be none; there,
    of two writers one would silently lose.

    Raises:
        StoreError: the storage cannot create exclusively.
    """
    for _ in range(2):
        made = {"layout": LAYOUT, "id": uuid.uuid4().hex, "audited": True}
        if not objects.create(MARK, json.dumps(made).encode()):
            return
    raise StoreError(
        f"the store {objects.url} can only be read: its storage ignores conditional requests, so that two writers "
        "could overwrite each other. Use a local folder or a storage that honours If-None-Match"
    )
