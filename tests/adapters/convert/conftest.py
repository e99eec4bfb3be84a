"""Adapters of any of peft's kinds for the tiny Llama, with random weights, and what they make of its predictions."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor

MakeKind = Callable[..., Path]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """peft and transformers warn of much that is meant here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for what is converted."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def make_kind(tiny_base: Path, tmp_path: Path) -> MakeKind:
    """A callable `make_kind(configuration class, model=tiny_base, strength=0.1, **its fields) -> folder`.

    The adapter is saved by peft; `strength` times standard normal numbers are added to all that it trains.
    """

    def make(make_config: Callable[..., Any], model: Path = tiny_base, strength: float = 0.1, **fields: Any) -> Path:
        import torch
        from peft import get_peft_model
        from transformers import AutoModelForCausalLM

        config = make_config(task_type="CAUSAL_LM", **{"target_modules": ["q_proj", "v_proj", "down_proj"], **fields})
        torch.manual_seed(0)
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(strength * torch.randn(parameter.shape))
        folder = tmp_path / f"given-{len(list(tmp_path.glob('given-*')))}"
        adapted.save_pretrained(folder)
        return folder

    return make


def logits(model: Path, adapter: Path | None = None) -> "Tensor":
    """What a model, or an adapter on it as peft runs it, predicts after each of 48 tokens; float32 [48, vocabulary]."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        loaded = PeftModel.from_pretrained(loaded, str(adapter), torch_device="cpu")
    ids = torch.arange(48)[None] * 7 % 96
    with torch.no_grad():
        return loaded.eval()(ids).logits[0]


def updates(folder: Path) -> dict[str, "Tensor"]:
    """B A of each module of a plain LoRA with alpha equal to its ranks, float64."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    paths = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]
    return {
        path.removeprefix("base_model.model."): tensors[f"{path}.lora_B.weight"].double()
        @ tensors[f"{path}.lora_A.weight"].double()
        for path in paths
    }


def merged_updates(model: Path, adapter: Path) -> dict[str, "Tensor"]:
    """Merged weight minus base weight of each changed layer, by merging the whole model in float64."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    before = {name: weight.clone() for name, weight in base.named_parameters()}
    merged = PeftModel.from_pretrained(base, str(adapter), torch_device="cpu").merge_and_unload()
    after = dict(merged.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    return {name.removesuffix(".weight"): (after[name] - before[name]).detach() for name in sorted(changed)}
