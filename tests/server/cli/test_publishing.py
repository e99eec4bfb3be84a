"""Adapters from anywhere into the store: as they are, converted, extracted, and many at once."""

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loraloom.adapters.names import Adapter
from loraloom.adapters.store import Store
from tests.adapters.small_adapters import small_adapter
from tests.server.cli.conftest import Loraloom


@pytest.fixture
def store(home: Path) -> Path:
    """Where the commands keep their store when nobody says otherwise."""
    return home / ".local/share/loraloom/store"


@pytest.fixture
def quiet() -> Iterator[None]:
    """peft and transformers warn of much that is meant here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_adding(loraloom: Loraloom, adapters: list[Path], base: Path, store: Path) -> None:
    outcome = loraloom("adapters", "add", adapters[0], "--name", "sql", "--base", base)
    (record,) = Store.open(store).versions("sql")
    assert (outcome.status, outcome.err) == (0, "")
    first, second = outcome.out.splitlines()
    assert first == f"added sql@1  sha256:{record.digest[:12]}"
    assert second.startswith("1 modules, rank 2, |dW| ")
    assert Store.open(store).facts(record.digest)["update"]["matched"] == 1
    assert (record.base_name, record.provenance) == (str(base), {"source": str(adapters[0])})
    assert record.base is not None
    assert record.by


def test_adding_the_same_again(loraloom: Loraloom, adapters: list[Path], base: Path) -> None:
    words = ("adapters", "add", adapters[0], "--name", "sql", "--base", base)
    first = loraloom(*words)
    again = loraloom(*words)
    assert (again.status, again.out) == (0, first.out.replace("added", "there already:"))


def test_adding_for_a_base_that_is_out_of_reach(adapters: list[Path], store: Path) -> None:
    """In a process of its own, which is offline: huggingface_hub reads that variable when it is imported."""
    command = [sys.executable, "-m", "loraloom.server.cli", "adapters", "add", str(adapters[0]), "--name", "sql"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert run.stderr == "its base tiny was not found: it will be checked at its first use\n"
    (record,) = Store.open(store).versions("sql")
    assert (record.base, record.base_name) == (None, "tiny")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}/missing", "--name", "sql"], "missing"),
        (["{given}", "--name", "s q l"], "'s q l' is not a valid selection"),
        (["{given}", "--name", "sql", "--tag", "1"], "a tag has more than digits"),
        (["{given}", "--name", "sql", "--base", "{tmp}/missing"], "there is no base model '{tmp}/missing'"),
        (["{given}", "--name", "sql", "--base", "{other}"], "1 of 1 modules have another shape"),
        (["{noop}", "--name", "sql", "--base", "{base}"], "the adapter changes nothing"),
    ],
)
def test_what_is_refused(
    loraloom: Loraloom, adapters: list[Path], base: Path, store: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    places = {
        "tmp": tmp_path,
        "given": adapters[0],
        "base": base,
        "other": another_base(tmp_path / "models/other"),
        "noop": small_adapter(tmp_path / "noop", scale=0),
    }
    outcome = loraloom("adapters", "add", *(word.format(**places) for word in words))
    assert (outcome.status, outcome.out) == (1, "")
    assert message.format(**places) in outcome.err
    assert not store.exists() or Store.open(store).names() == []


def test_a_name_that_is_not_allowed_begins_no_store(loraloom: Loraloom, adapters: list[Path], store: Path) -> None:
    assert loraloom("adapters", "add", adapters[0], "--name", "s q l").status == 1
    assert not store.exists()


def another_base(folder: Path) -> Path:
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir()
    save_file({"model.layers.0.self_attn.q_proj.weight": np.zeros((4, 4), np.float32)}, folder / "model.safetensors")
    return folder


def test_adding_what_changes_nothing(loraloom: Loraloom, base: Path, tmp_path: Path) -> None:
    noop = small_adapter(tmp_path / "noop", scale=0)
    assert loraloom("adapters", "add", noop, "--name", "sql", "--base", base, "--allow-noop").status == 0


def peft_model(base: Path, **fields: Any) -> Any:
    """The base with an adapter that changes something, as peft holds it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "down_proj"], **fields)
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


def test_another_kind_is_converted(
    loraloom: Loraloom, store: Path, tiny_base: Path, tmp_path: Path, quiet: None
) -> None:
    given = tmp_path / "dora"
    peft_model(tiny_base, use_dora=True).save_pretrained(given)
    words = ("adapters", "add", given, "--name", "dora", "--rank", "32", "--max-kl", "0.1")
    outcome = loraloom(*words)
    (record,) = Store.open(store).versions("dora")
    facts = Store.open(store).facts(record.digest)
    assert outcome.status == 0, outcome.err
    added, converted, update = outcome.out.splitlines()
    assert added == f"added dora@1  sha256:{record.digest[:12]}"
    assert converted.startswith("DoRA, ")
    assert f"at rank {record.rank}, relative error" in converted
    assert "KL" in converted
    assert update.startswith(f"4 modules, rank {record.rank}, |dW| ")
    assert (facts["conversion"]["kind"], facts["conversion"]["rank"]) == ("DoRA", record.rank)
    assert (record.base_name, record.provenance) == (str(tiny_base), {"source": str(given)})
    kept = store / "originals" / record.original
    assert all(
        (kept / name).read_bytes() == (given / name).read_bytes() for name in ("adapter_config.json", "README.md")
    )
    shown = loraloom("adapters", "show", "dora").out
    assert f"dora@1 conversion: {converted}" in shown
    again = loraloom(*words)
    assert (again.status, again.out.splitlines()[0]) == (0, added.replace("added", "there already:"))


def test_a_conversion_that_loses_too_much_is_refused(
    loraloom: Loraloom, store: Path, tiny_base: Path, tmp_path: Path, quiet: None
) -> None:
    peft_model(tiny_base, use_dora=True).save_pretrained(tmp_path / "dora")
    outcome = loraloom("adapters", "add", tmp_path / "dora", "--name", "dora", "--rank", "1", "--max-kl", "0")
    assert (outcome.status, outcome.out) == (1, "")
    assert "as plain LoRA of rank 1" in outcome.err
    assert Store.open(store).names() == []


def test_a_conversion_needs_its_base(loraloom: Loraloom, tiny_base: Path, tmp_path: Path, quiet: None) -> None:
    given = tmp_path / "dora"
    peft_model(tiny_base, use_dora=True).save_pretrained(given)
    config = json.loads((given / "adapter_config.json").read_text())
    (given / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    outcome = loraloom("adapters", "add", given, "--name", "dora")
    assert (outcome.status, "name that with --base" in outcome.err) == (1, True)


def test_options_of_a_conversion_that_is_none(loraloom: Loraloom, adapters: list[Path], base: Path) -> None:
    outcome = loraloom("adapters", "add", adapters[0], "--name", "sql", "--base", base, "--rank", "1")
    assert (outcome.status, outcome.err) == (0, "sql is plain LoRA already: nothing was converted\n")


def test_what_a_whole_model_learned_is_extracted(
    loraloom: Loraloom, store: Path, tiny_base: Path, tmp_path: Path, quiet: None
) -> None:
    tuned = tmp_path / "tuned"
    peft_model(tiny_base).merge_and_unload().save_pretrained(tuned)
    refused = loraloom("adapters", "add", tuned, "--name", "tuned")
    assert (refused.status, "name that with --base" in refused.err) == (1, True)
    outcome = loraloom("adapters", "add", tuned, "--name", "tuned", "--base", tiny_base, "--energy", "0.999")
    assert outcome.status == 0, outcome.err
    (record,) = Store.open(store).versions("tuned")
    assert (record.rank, record.base_name) == (2, str(tiny_base))
    assert record.provenance["source"] == str(tuned)
    assert "extracted" in record.provenance
    assert "fine-tuned model" in outcome.out
    assert Store.open(store).verify() == []


def test_importing_both_forms(
    loraloom: Loraloom, adapters: list[Path], base: Path, store: Path, tmp_path: Path
) -> None:
    (tmp_path / "more").write_text(f"third={adapters[2]}\n")
    entry = json.dumps({"name": "org/second", "path": str(adapters[1]), "base_model_name": str(base)})
    words = ("adapters", "import", f"first={adapters[0]}", entry, f"@{tmp_path}/more", "--base", base)
    outcome = loraloom(*words)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.splitlines()[-1] == "3 added, 0 there already, 0 failed"
    assert Store.open(store).names() == ["first", "org/second", "third"]
    again = loraloom(*words, "--tag", "imported")
    assert (again.status, again.out.splitlines()[-1]) == (0, "0 added, 3 there already, 0 failed")
    assert Store.open(store).tags("third") == {"imported": 1, "latest": 1}


def test_one_failure_stops_no_other(
    loraloom: Loraloom, adapters: list[Path], base: Path, store: Path, tmp_path: Path
) -> None:
    bad = [
        f"s q l={adapters[0]}",
        f"none={tmp_path}/none",
        "no entry",
        f"noop={small_adapter(tmp_path / 'noop', scale=0)}",
    ]
    outcome = loraloom("adapters", "import", *bad, f"good={adapters[1]}", "--base", base)
    assert (outcome.status, outcome.out.splitlines()[-1]) == (1, "1 added, 0 there already, 4 failed")
    assert Store.open(store).names() == ["good"]
    lines = outcome.err.splitlines()
    assert [line.startswith(f"loraloom: {entry}: ") for entry, line in zip(bad, lines, strict=True)] == [True] * 4
    assert "is not a valid selection" in lines[0]


def test_the_parent_of_an_entry_is_looked_for_and_need_not_be_found(
    loraloom: Loraloom, adapters: list[Path], base: Path, store: Path
) -> None:
    for name, parent in (("near", str(base)), ("far", "some/where/else/entirely")):
        entry = json.dumps({"name": name, "path": str(adapters[0]), "base_model_name": parent})
        assert loraloom("adapters", "import", entry).status == 0
    near, far = (Store.open(store).resolve(Adapter(name)) for name in ("near", "far"))
    assert (near.base_name, near.base is None) == (str(base), False)
    assert (far.base_name, far.base is None) == ("some/where/else/entirely", True)
