"""An exported folder is one that peft and vLLM load, and that says where it comes from."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from loraloom.adapters.errors import DamagedBlob
from loraloom.adapters.manifest import CONFIG_FILE, WEIGHTS_FILE
from loraloom.adapters.names import Adapter
from loraloom.adapters.store import Store
from loraloom.adapters.store.export import export
from loraloom.adapters.store.records import VersionRecord
from tests.adapters.small_adapters import small_adapter
from tests.tiny_models import MakeAdapter

MIXED_RANKS: dict[str, Any] = {
    "r": 4,
    "lora_alpha": 12,
    "target_modules": ["q_proj", "k_proj", "v_proj", "down_proj", "lm_head"],
    "rank_pattern": {"layers.0.self_attn.q_proj": 2, "down_proj": 7, r".*\.1\.self_attn\.v_proj": 1},
    "alpha_pattern": {"k_proj": 3, "layers.1.mlp.down_proj": 20},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def version(store: Store, tmp_path: Path) -> VersionRecord:
    given = small_adapter(tmp_path / "given")
    return store.publish(given, "org/sql", by="ann", provenance={"run": "ü 7"}).version


def merged_weights(base: Path, folder: Path) -> dict[str, Any]:
    """The dense weights of the base with the adapter, as peft computes them; any warning fails."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        return dict(PeftModel.from_pretrained(model, str(folder)).merge_and_unload().state_dict())


@pytest.mark.parametrize("fields", [{}, MIXED_RANKS], ids=["one-rank", "mixed-ranks"])
def test_peft_makes_the_same_of_it(
    store: Store, make_adapter: MakeAdapter, biased_base: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    import torch

    given = make_adapter(model=biased_base, **fields)
    version = store.publish(given, "sql", base_name=str(biased_base)).version
    export(store, version, tmp_path / "out")
    expected, found = (merged_weights(biased_base, folder) for folder in (given, tmp_path / "out"))
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-6, msg=name)


def test_each_pattern_names_one_module(store: Store, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    from peft.utils.other import get_pattern_key

    fields = {**MIXED_RANKS, "target_modules": MIXED_RANKS["target_modules"][:-1]}
    version = store.publish(make_adapter(**fields), "sql").version
    export(store, version, tmp_path / "out")
    config = json.loads((tmp_path / "out" / CONFIG_FILE).read_text())
    modules = store.manifest(version.digest).modules
    assert config["rank_pattern"] == config["alpha_pattern"]
    assert len(config["rank_pattern"]) == len([path for path in modules if modules[path].rank != 7])
    for path, module in modules.items():
        key = get_pattern_key(config["rank_pattern"].keys(), path)
        assert config["rank_pattern"].get(key, config["r"]) == module.rank
        assert get_pattern_key(config["rank_pattern"].keys(), f"vision.{path}") == f"vision.{path}"


def test_vllm_reads_ranks_and_scalings(store: Store, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    peft_helper = pytest.importorskip("vllm.lora.peft_helper")
    fields = {**MIXED_RANKS, "target_modules": MIXED_RANKS["target_modules"][:-1]}
    version = store.publish(make_adapter(**fields), "sql").version
    export(store, version, tmp_path / "out")
    helper = peft_helper.PEFTHelper.from_local_dir(str(tmp_path / "out"), None)
    assert helper._validate_features() == []
    for path, module in store.manifest(version.digest).modules.items():
        assert helper.get_rank_and_scaling(path) == (module.rank, 1.0)


@pytest.mark.parametrize("fields", [{}, MIXED_RANKS, {"use_rslora": True}, {"dtype": "bfloat16", "lora_alpha": 3}])
def test_adding_it_again_gives_the_same_digest(
    store: Store, make_adapter: MakeAdapter, tmp_path: Path, fields: dict[str, Any]
) -> None:
    fields = {**fields, "target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"]}
    version = store.publish(make_adapter(**fields), "sql").version
    export(store, version, tmp_path / "out")
    again = store.publish(tmp_path / "out", "sql")
    assert (again.created, again.version) == (False, version)


def test_it_says_where_it_comes_from(store: Store, version: VersionRecord, tmp_path: Path) -> None:
    store.note_fact(version.digest, "effect", {"tokens": 24})
    export(store, version, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", CONFIG_FILE, WEIGHTS_FILE]
    assert json.loads((tmp_path / "out" / CONFIG_FILE).read_text())["base_model_name_or_path"] == "tiny"
    card = (tmp_path / "out/README.md").read_text()
    assert card.startswith('---\nbase_model: "tiny"\nlibrary_name: peft\n---\n')
    for text in ("org/sql@1", version.digest, "ann", '{"run": "ü 7"}', '{"tokens": 24}', version.created):
        assert text in card


def test_the_files_are_the_users_own(store: Store, version: VersionRecord, tmp_path: Path) -> None:
    export(store, version, tmp_path / "some/new/folder")
    for path in (tmp_path / "some/new/folder").iterdir():
        assert path.stat().st_mode & 0o200


def test_an_empty_folder_is_filled(store: Store, version: VersionRecord, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    export(store, version, tmp_path / "link")
    assert len(os.listdir(tmp_path / "out")) == 3


def test_what_is_there_stays(store: Store, version: VersionRecord, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("mine")
    for target in (tmp_path / "file", tmp_path / "folder"):
        with pytest.raises(FileExistsError, match="name another one"):
            export(store, version, target)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder/file").read_text() == "mine"


def test_what_cannot_be_finished_leaves_nothing(store: Store, version: VersionRecord, tmp_path: Path) -> None:
    weights = tmp_path / "store/blobs" / version.digest / WEIGHTS_FILE
    weights.chmod(0o644)
    os.truncate(weights, 100)
    (tmp_path / "place").mkdir()
    with pytest.raises(DamagedBlob):
        export(store, version, tmp_path / "place/out")
    assert list((tmp_path / "place").iterdir()) == []


def test_a_remote_store_is_exported_too(tmp_path: Path) -> None:
    store = Store.open(f"memory://{tmp_path.name}", cache=tmp_path / "cache")
    version = store.publish(small_adapter(tmp_path / "given"), "sql").version
    export(store, store.resolve(Adapter("sql")), tmp_path / "out")
    assert store.publish(tmp_path / "out", "sql").version == version
