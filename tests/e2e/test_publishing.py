"""What a running server does with an adapter that is published: convert it, if need be, and measure what it does."""

import asyncio
import warnings
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from loraloom.adapters.store import Store
from loraloom.demo.catalog import demo_adapters
from tests.e2e.serving import Server, chat_body, eventually

pytestmark = pytest.mark.engine

DATE = next(adapter for adapter in demo_adapters() if adapter.name == "date")
FILES = ("adapter_config.json", "adapter_model.safetensors")


def publish(server: Server, folder: Path, **fields: object) -> dict[str, Any]:
    files = [("file", (name, (folder / name).read_bytes())) for name in FILES]
    with server.client() as client:
        reply = client.post("/v1/adapters", data=fields, files=files, timeout=300)
    assert reply.status_code == 201, reply.text
    version: dict[str, Any] = reply.json()
    return version


def effect_of(server: Server, version: dict[str, Any]) -> dict[str, Any]:
    """The effect that the server measures in its own time."""
    store = Store.open(server.store)

    async def measured() -> bool:
        return "effect" in store.facts(version["digest"])

    asyncio.run(eventually(measured))
    return dict(store.facts(version["digest"])["effect"])


def test_the_effect_of_an_adapter_becomes_a_fact(server: Server) -> None:
    version = publish(server, DATE.folder, name="published-date")
    effect = effect_of(server, version)
    assert effect["max_logprob_change"] > 0.1
    assert effect["tokens"] > 30
    shown = server.command("show", "published-date").stdout
    assert "log-probabilities move by" in shown
    assert "WARNING" not in shown


def test_an_adapter_that_does_nothing_is_shown_with_a_warning(server: Server, tmp_path: Path) -> None:
    tensors = load_file(DATE.folder / FILES[1])
    zeros = {name: tensor * (0 if "lora_B" in name else 1) for name, tensor in tensors.items()}
    save_file(zeros, tmp_path / FILES[1])
    (tmp_path / FILES[0]).write_bytes((DATE.folder / FILES[0]).read_bytes())
    version = publish(server, tmp_path, name="idle", allow_noop="true")
    assert effect_of(server, version)["max_logprob_change"] < 1e-3
    assert "WARNING, it changes next to nothing" in server.command("show", "idle").stdout


def dora(model: Path, folder: Path) -> Path:
    """A DoRA of the demo model's last layer, as peft saves it, which does something."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = LoraConfig(
        r=4, lora_alpha=8, use_dora=True, target_modules=["q_proj", "v_proj"], layers_to_transform=[29],
        task_type="CAUSAL_LM",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(base, config)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02, generator=source)
    adapted.save_pretrained(folder)
    return folder


def test_an_adapter_of_another_kind_is_converted_and_served(server: Server, demo_model: Path, tmp_path: Path) -> None:
    version = publish(server, dora(demo_model, tmp_path / "dora"), name="dora", rank=64, max_kl=0.1)
    conversion = version["facts"]["conversion"]
    assert conversion["kind"] == "DoRA"
    assert conversion["rank"] <= 64
    assert 0 < conversion["relative_error"] < 1
    assert conversion["kl"] <= 0.1
    assert effect_of(server, version)["max_logprob_change"] > 1e-3
    with server.client() as client:
        reply = client.post("/v1/chat/completions", json=chat_body("dora", "Hello", max_tokens=4)).json()
    assert reply["model"] == "dora@1"
    assert "DoRA, approximated at rank" in server.command("show", "dora").stdout
