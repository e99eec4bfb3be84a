"""The composite model, built and loaded by vLLM: which weights go where, and what comes out of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from vllm.config import LoRAConfig, VllmConfig, set_current_vllm_config
from vllm.lora.layers import LoRAMapping
from vllm.lora.lora_model import LoRAModel
from vllm.lora.model_manager import LoRAModelManager
from vllm.lora.peft_helper import PEFTHelper
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.model_loader import get_model_loader
from vllm.model_executor.model_loader.utils import initialize_model, process_weights_after_loading
from vllm.model_executor.models.interfaces import supports_lora
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.platforms.cpu import CpuPlatform

from loraloom.adapters.base import fingerprint
from loraloom.adapters.methods import EXACT
from loraloom.adapters.mixtures.recipe import Ingredient
from loraloom.adapters.store import Store
from loraloom.server.kernels.install import install
from loraloom.server.proxy.composite.combine import combine
from loraloom.server.proxy.composite.model import ProxyForCausalLM
from loraloom.server.proxy.variant import Variant, write_variant
from tests.server.proxy.composite.composing import Models, engine_config, without_cache
from tests.tiny_models import MakeAdapter

pytestmark = pytest.mark.usefixtures("alone")

IDS, POSITIONS = torch.tensor([5, 60, 7]), torch.tensor([0, 1, 2])


def empty(config: VllmConfig) -> Any:
    with set_current_vllm_config(config):
        return initialize_model(config)


def loaded(config: VllmConfig) -> Any:
    """The model with its checkpoints."""
    model = empty(config)
    get_model_loader(config.load_config).load_weights(model, config.model_config)
    return model


def computing(config: VllmConfig) -> Any:
    """The model as an engine computes with it, on one prompt."""
    model = loaded(config)
    process_weights_after_loading(model, config.model_config, torch.device("cpu"))
    without_cache(model)
    return model


@pytest.fixture(scope="module")
def proxy(models: Models, alone: None) -> Any:
    """A model whose expert is the small model with an adapter."""
    return computing(engine_config(models))


@pytest.fixture(scope="module")
def with_expert(models: Models, alone: None) -> Any:
    """A model whose expert is a tuned small model."""
    return computing(engine_config(models, own_expert=True, alpha=0.3))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def holds(model: Any, folder: Path) -> bool:
    """Whether a model has the weights of a directory, by its embedding, which vLLM pads."""
    weight = weights(folder)["model.embed_tokens.weight"]
    return torch.equal(model.model.embed_tokens.weight[: len(weight)], weight)


def test_each_checkpoint_goes_to_its_own_model(models: Models) -> None:
    proxy, with_expert = loaded(engine_config(models)), loaded(engine_config(models, own_expert=True, alpha=0.3))
    assert isinstance(proxy, ProxyForCausalLM)
    assert holds(proxy.large, models.large)
    assert holds(proxy.expert, models.small)
    assert not hasattr(proxy, "antiexpert"), "its weights are the expert's"
    assert holds(with_expert.large, models.large)
    assert holds(with_expert.expert, models.expert)
    assert holds(with_expert.antiexpert, models.small)
    for model in (proxy, with_expert):
        assert model.proxy_alpha.weight.flatten().tolist() == [0, 0, 0], "only adapters say anything of it"


def test_every_parameter_is_told_as_loaded(models: Models) -> None:
    """vLLM refuses a model with others."""
    model = empty(engine_config(models, own_expert=True))
    given = list(weights(models.large).items())
    for name, folder in (("expert", models.expert), ("antiexpert", models.small)):
        given += [(f"loraloom/{name}/{tensor}", value) for tensor, value in weights(folder).items()]
    assert model.load_weights(given) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("own_expert", [False, True])
def test_each_attention_layer_has_a_cache_of_its_own(models: Models, own_expert: bool) -> None:
    model = empty(engine_config(models, own_expert=own_expert))
    layers = [layer.layer_name for layer in model.modules() if isinstance(layer, Attention)]
    assert [name.partition("model.")[0] for name in layers] == ["", "", "expert.", "antiexpert."]


@torch.inference_mode()
def test_a_row_holds_the_three_hidden_states_and_the_strength(with_expert: Any) -> None:
    parts = [part(IDS, POSITIONS) for part in (with_expert.large, with_expert.expert, with_expert.antiexpert)]
    assert torch.equal(with_expert(IDS, POSITIONS), torch.cat((*parts, torch.zeros(len(IDS), 3)), 1))
    assert not torch.equal(*parts[1:])


@torch.inference_mode()
@pytest.mark.parametrize("which", ["proxy", "with_expert"])
def test_what_one_model_gives_is_kept_before_the_next_takes_its_memory(
    which: str, request: pytest.FixtureRequest
) -> None:
    """As CUDA graphs do that share a pool: the output of one lies where the next computes."""
    model = request.getfixturevalue(which)
    parts = [getattr(model, name) for name in ("large", "expert", "antiexpert") if hasattr(model, name)]
    expected, given = model(IDS, POSITIONS), list[torch.Tensor]()

    def taken(*_: Any) -> None:
        for output in given:
            output.zero_()

    hooks = [part.register_forward_pre_hook(taken) for part in parts]
    hooks += [part.register_forward_hook(lambda _, __, output: given.append(output)) for part in parts]
    try:
        assert torch.equal(model(IDS, POSITIONS), expected)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(given) == len(parts)


@torch.inference_mode()
def test_it_is_the_formula_on_what_transformers_computes(with_expert: Any, models: Models) -> None:
    found = with_expert.compute_logits(with_expert(IDS, POSITIONS))
    large, expert, antiexpert = (
        AutoModelForCausalLM.from_pretrained(folder)(IDS.unsqueeze(0)).logits[0]
        for folder in (models.large, models.expert, models.small)
    )
    large[:, :80] += 0.3 * (expert - antiexpert)
    torch.testing.assert_close(found, large, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_without_an_adapter_it_is_the_large_model(proxy: Any, models: Models) -> None:
    row = proxy(IDS, POSITIONS)
    _, expert, antiexpert, _ = row.split([32, 16, 16, 3], 1)
    plain = AutoModelForCausalLM.from_pretrained(models.small).model(IDS.unsqueeze(0)).last_hidden_state[0]
    for half in (expert, antiexpert):
        torch.testing.assert_close(half, plain, rtol=1e-4, atol=1e-4)
    assert torch.equal(proxy.compute_logits(row), proxy.large.compute_logits(proxy.large(IDS, POSITIONS)))


@torch.inference_mode()
def test_a_token_that_only_the_large_model_has_is_the_small_ones_last(proxy: Any) -> None:
    """As a client may send it by its number."""
    beyond, last = (proxy(torch.tensor([5, token]), POSITIONS[:2]) for token in (95, 79))
    assert not torch.equal(beyond[:, :32], last[:, :32])
    assert torch.equal(beyond[:, 32:], last[:, 32:])


@pytest.mark.parametrize("which", ["proxy", "with_expert"])
@torch.inference_mode()
def test_each_row_has_its_own_strength(which: str, request: pytest.FixtureRequest) -> None:
    """By the last columns; which rows an engine selects does not matter."""
    model = request.getfixturevalue(which)
    large, expert, antiexpert = (torch.randn(3, width) for width in (32, 16, 16))
    strengths = torch.tensor([[0.0, 0.0, 1.0], [2.0, -0.25, 1.0], [-1.0, 0.0, 1.0]])
    found = model.compute_logits(torch.cat((large, expert, antiexpert, strengths), 1))
    plain = model.large.compute_logits(large)
    second = getattr(model, "antiexpert", model.expert)
    small = model.expert.compute_logits(expert), second.compute_logits(antiexpert)
    expected = combine(plain, *small, torch.tensor([[0.0], [1.75], [-1.0]]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(found[0], plain[0])
    assert not torch.equal(found[1, :80], plain[1, :80])


def test_vllm_finds_what_adapters_can_reach(proxy: Any) -> None:
    assert supports_lora(ProxyForCausalLM)
    assert supports_lora(proxy)
    assert proxy.packed_modules_mapping == LlamaForCausalLM.packed_modules_mapping
    assert torch.equal(proxy.embed_input_ids(IDS), proxy.large.embed_input_ids(IDS))


class Adapted:
    """The composite model under vLLM's LoRA, with adapters in its slots."""

    def __init__(self, config: VllmConfig) -> None:
        self.model = computing(config)
        self._lora = LoRAConfig(max_lora_rank=8, max_loras=2, lora_dtype=torch.float32)
        with set_current_vllm_config(config):
            self._manager = LoRAModelManager(self.model, 8, 64, 96, self._lora, torch.device("cpu"), config)

    def load(self, number: int, folder: Path) -> None:
        """As vLLM's worker does."""
        modules = {name.rpartition(".")[2] for name, _ in self.model.named_modules()}
        modules |= {each for packed in self.model.packed_modules_mapping.values() for each in packed}
        peft = PEFTHelper.from_local_dir(str(folder), max_position_embeddings=64)
        peft.validate_legal(self._lora)
        adapter = LoRAModel.from_local_checkpoint(
            str(folder), modules, peft, lora_model_id=number, device="cpu", dtype=torch.float32
        )
        self._manager.add_adapter(adapter)
        self._manager.activate_adapter(number)

    @torch.inference_mode()
    def logits(self, number: int) -> torch.Tensor:
        """Of `IDS`, by an adapter; 0 is none."""
        self._manager.set_adapter_mapping(LoRAMapping((number,) * len(IDS), (number,) * len(IDS), is_prefill=True))
        logits: torch.Tensor = self.model.compute_logits(self.model(IDS, POSITIONS))
        return logits


@torch.no_grad()
def reference(folder: Path, adapter: Path | None = None) -> torch.Tensor:
    """The logits of `IDS` by transformers and peft."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    if adapter:
        model = PeftModel.from_pretrained(model, str(adapter))
    logits: torch.Tensor = model(input_ids=IDS.unsqueeze(0)).logits[0]
    return logits


@pytest.mark.parametrize("own_expert", [False, True])
def test_adapters_of_both_models_and_a_strength(
    models: Models,
    make_adapter: MakeAdapter,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own_expert: bool,
) -> None:
    monkeypatch.setattr(CpuPlatform, "get_punica_wrapper", CpuPlatform.__dict__["get_punica_wrapper"])
    install()
    targets = ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
    small, large = (
        make_adapter(name, model=folder, target_modules=targets)
        for name, folder in (("small", models.small), ("large", models.large))
    )
    versions = [
        store.publish(folder, name, base=fingerprint(base)).version
        for name, folder, base in (("small", small, models.small), ("large", large, models.large))
    ]
    ingredients = tuple(Ingredient(1.0, version) for version in versions)
    variant = Variant(EXACT, ingredients, frozenset({"small@1"}), 0.75, base="")
    (tmp_path / "variant").mkdir()
    write_variant(variant, [(1.0, store.folder(each.digest)) for each in versions], tmp_path / "variant", None)
    adapted = Adapted(engine_config(models, own_expert=own_expert, alpha=0.5))
    before = adapted.logits(0)
    adapted.load(1, tmp_path / "variant")
    expert = models.expert if own_expert else models.small
    expected = reference(models.large, large)
    expected[:, :80] += 0.75 * (reference(expert, small) - reference(models.small))
    torch.testing.assert_close(adapted.logits(1), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(adapted.logits(0), before), "without an adapter nothing has changed"
