import json
from pathlib import Path

import httpx

from loraloom.adapters.store import Store
from tests.adapters.small_adapters import small_adapter
from tests.faults.load import Keeper
from tests.faults.recorder import GOOD, WRONG


async def test_only_what_was_acknowledged_can_be_lost(tmp_path: Path) -> None:
    """A server that acknowledges three versions: one that is there, one with other content, and one that is not."""
    store = Store.open(tmp_path / "store")
    there = store.publish(small_adapter(tmp_path / "one", seed=1), "kept/0").version
    changed = store.publish(small_adapter(tmp_path / "two", seed=2), "kept/0").version
    replies = [
        (201, {"version": there.number, "digest": there.digest}),
        (201, {"version": changed.number, "digest": there.digest}),
        (201, {"version": 7, "digest": there.digest}),
        (201, {"version": 8}),
        (503, {"error": {"message": "", "type": "server_error", "param": None, "code": "store_unavailable"}}),
    ]
    answers = iter(replies)

    def answer(_: httpx.Request) -> httpx.Response:
        status, content = next(answers)
        return httpx.Response(status, text=json.dumps(content))

    (tmp_path / "kept").mkdir()
    keeper = Keeper(tmp_path / "kept")
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://it") as client:
        ends = [await keeper.publish(client) for _ in replies]
    assert ends == [GOOD, GOOD, GOOD, WRONG, "503 store_unavailable"]
    assert keeper.lost(tmp_path / "store") == ["kept/0@2", "kept/0@7"]


async def test_what_is_damaged_is_lost(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    there = store.publish(small_adapter(tmp_path / "one"), "kept/0").version
    keeper = Keeper(tmp_path, {("kept/0", 1): there.digest})
    assert keeper.lost(tmp_path / "store") == []
    weights = store.folder(there.digest) / "adapter_model.safetensors"
    weights.parent.chmod(0o755)
    weights.unlink()
    assert keeper.lost(tmp_path / "store") == ["kept/0@1"]
