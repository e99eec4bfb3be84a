"""The Hub's part of `base`: fingerprints of models that are not here as a folder."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, snapshot_download

from loraloom.adapters.base import find_fingerprint, fingerprint
from loraloom.adapters.errors import InvalidBase

REPO = "org/tiny"


@pytest.fixture
def published(hub: Any, tiny_base: Path) -> Any:
    hub.publish(REPO, tiny_base)
    return hub


def _go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_only_headers_and_the_tokenizer_are_fetched(published: Any, tiny_base: Path) -> None:
    assert fingerprint(REPO) == fingerprint(tiny_base)
    cached = {path.name for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.is_symlink()}
    assert cached == {"tokenizer.json"}


def test_a_cached_model_needs_no_network(published: Any, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot_download(REPO)
    _go_offline(monkeypatch)
    published.requests.clear()
    assert fingerprint(REPO) == fingerprint(tiny_base)
    assert published.requests == []


def test_a_half_cached_model_is_asked_for_at_the_hub(published: Any, tiny_base: Path) -> None:
    folder = Path(snapshot_download(REPO))
    (folder / "model.safetensors").resolve().unlink()
    assert fingerprint(REPO) == fingerprint(tiny_base)


def test_a_model_without_a_tokenizer_has_none(published: Any) -> None:
    del published.repos[REPO]["tokenizer.json"]
    assert fingerprint(REPO).tokenizer is None


def test_cached_weights_without_their_tokenizer_are_no_fingerprint_offline(
    published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the model has a tokenizer cannot be told then, and a fingerprint without it would be another one."""
    snapshot_download(REPO, allow_patterns=["*.safetensors"])
    _go_offline(monkeypatch)
    assert find_fingerprint(REPO) is None


def test_out_of_reach(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_fingerprint("org/other") is None
    with pytest.raises(InvalidBase, match="nor such an id on the Hugging Face Hub.*HF_TOKEN"):
        fingerprint("org/other")
    published.gated.add(REPO)
    assert find_fingerprint(REPO) is None
    with pytest.raises(InvalidBase, match="is gated: ask for access"):
        fingerprint(REPO)
    _go_offline(monkeypatch)
    assert find_fingerprint(REPO) is None
    with pytest.raises(InvalidBase, match="HF_HUB_OFFLINE"):
        fingerprint(REPO)


def test_a_hub_that_does_not_answer_is_out_of_reach(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    published.shutdown()
    published.server_close()
    assert find_fingerprint(REPO) is None
    with pytest.raises(InvalidBase, match="could not be had from the Hugging Face Hub"):
        fingerprint(REPO)


def test_a_model_without_safetensors_is_refused(published: Any) -> None:
    published.repos[REPO]["pytorch_model.bin"] = published.repos[REPO].pop("model.safetensors")
    with pytest.raises(InvalidBase, match="no weights as safetensors"):
        find_fingerprint(REPO)


def test_damaged_weights_are_refused(published: Any) -> None:
    published.repos[REPO]["model.safetensors"] = b"\xff" * 100
    with pytest.raises(InvalidBase, match="no weights as safetensors"):
        find_fingerprint(REPO)


def test_a_folder_comes_before_the_hub(
    published: Any, biased_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(biased_base, tmp_path / REPO)
    monkeypatch.chdir(tmp_path)
    assert fingerprint(REPO) == fingerprint(biased_base)
    assert published.requests == []
