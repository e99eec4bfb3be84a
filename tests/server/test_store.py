"""The store of the settings."""

from pathlib import Path

import pytest

from loraloom.adapters.errors import StoreError
from loraloom.server.settings import Settings
from loraloom.server.store import open_store
from tests.adapters.small_adapters import small_adapter


def test_a_folder(tmp_path: Path) -> None:
    settings = Settings(adapters=str(tmp_path / "store"))
    with pytest.raises(StoreError):
        open_store(settings, create=False)
    assert not (tmp_path / "store").exists()
    open_store(settings)
    assert open_store(settings, create=False).names() == []


def test_a_url_is_cached_where_the_settings_say(tmp_path: Path) -> None:
    settings = Settings(adapters=f"memory://{tmp_path.name}", cache=tmp_path / "cache")
    with pytest.raises(StoreError):
        open_store(settings, create=False)
    store = open_store(settings)
    digest = store.publish(small_adapter(tmp_path / "given"), "sql").version.digest
    with store.leased(digest) as folder:
        assert folder.is_relative_to(tmp_path / "cache/blobs")
