"""An adapter of the store as the plain folder that peft and vLLM load, for use without the store."""

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from loraloom.adapters.manifest import CONFIG_FILE, WEIGHTS_FILE, Manifest
from loraloom.adapters.store.facts import Fact
from loraloom.adapters.store.records import VersionRecord
from loraloom.adapters.store.store import Store


def export(store: Store, version: VersionRecord, target: Path) -> None:
    """Write a version to the folder `target`, all at once.

    Adding that folder again gives the same digest.

    Args:
        target: a folder that is empty, or is not there.

    Raises:
        FileExistsError: there is something in its place.
        DamagedBlob: the stored files are damaged.
        StoreError: the store cannot be read.
        OSError: the folder cannot be written.
    """
    target = target.resolve()
    if os.path.lexists(target) and not (target.is_dir() and not os.listdir(target)):
        raise FileExistsError(f"{target} is there already, and not an empty folder: name another one")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    try:
        aside.mkdir()
        _write(store, version, aside)
        os.replace(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def peft_config(manifest: Manifest, base_name: str | None) -> dict[str, object]:
    """What `adapter_config.json` says of a normal form whose modules have ranks of their own.

    A pattern begins with "^" and names one whole path: before it, peft and vLLM put an optional prefix, which would let
    it match the end of a longer path too.
    """
    rank = manifest.rank
    smaller = {f"^{re.escape(path)}": module.rank for path, module in manifest.modules.items() if module.rank != rank}
    return {
        "alpha_pattern": smaller,
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": smaller,
        "target_modules": sorted(manifest.modules),
        "task_type": manifest.task_type,
        "use_dora": False,
        "use_rslora": False,
    }


def _write(store: Store, version: VersionRecord, folder: Path) -> None:
    store.check(version.digest)
    config = peft_config(store.manifest(version.digest), version.base_name)
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    with store.leased(version.digest) as blob:
        shutil.copyfile(blob / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    (folder / "README.md").write_text(_card(version, store.facts(version.digest)))


def _card(version: VersionRecord, facts: Mapping[str, Fact]) -> str:
    """A model card, with all that is known of where the adapter comes from."""
    known = {
        "name": version.canonical,
        "digest": f"sha256:{version.digest}",
        "base": version.base_name,
        "base fingerprint": version.base,
        "published": version.created,
        "by": version.by,
        "provenance": version.provenance,
        **facts,
    }
    rows = "".join(f"- {key}: `{_json(value)}`\n" for key, value in known.items() if value)
    return (
        f"---\nbase_model: {_json(version.base_name)}\nlibrary_name: peft\n---\n\n# {version.canonical}\n\n"
        "Exported by LoraLoom: plain LoRA, with every scaling folded into B, so that alpha is the rank.\n\n" + rows
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
