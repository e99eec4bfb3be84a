"""One set of small weights as expert and antiexpert, of which adapters reach the first."""

import pytest
import torch
from torch import nn
from transformers import PreTrainedConfig
from vllm.config import set_current_vllm_config
from vllm.lora.layers import BaseLayerWithLoRA, LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.model_executor.layers.attention import Attention
from vllm.platforms import current_platform

from loraloom.server.proxy.composite.building import build_small
from loraloom.server.proxy.composite.twins import ExpertRows, TwinAttention, Twins, join_attention
from tests.server.kernels.slots import Slots
from tests.server.proxy.composite.composing import Models, engine_config

WIDTH, VOCABULARY = 8, 10
needs_cpu = pytest.mark.skipif(not current_platform.is_cpu(), reason="kernels of vLLM's CPU build")


class Plus(nn.Module):
    """Attention that only adds: what has gone through it is seen."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self._number = number

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return query + 10 * key + 100 * value + self._number


def test_each_half_attends_by_itself() -> None:
    query, key, value = torch.randn(3, 6, WIDTH)
    found = TwinAttention(Plus(1.0), Plus(2.0))(query, key, value)  # type: ignore[arg-type]
    plain = query + 10 * key + 100 * value
    assert torch.equal(found, torch.cat((plain[:3] + 1.0, plain[3:] + 2.0)))


@pytest.mark.usefixtures("alone")
def test_every_attention_layer_gets_its_twin(models: Models) -> None:
    """The models are of one weight and differ in the names of their caches."""
    config = engine_config(models)
    with set_current_vllm_config(config):
        expert, antiexpert = (build_small(config, str(models.small), name, rows=2) for name in ("expert", "antiexpert"))
    paths = [name for name, layer in expert.named_modules() if isinstance(layer, Attention)]
    parameters = [name for name, _ in expert.named_parameters()]
    join_attention(expert, antiexpert)
    assert paths == ["model.layers.0.self_attn.attn"]
    for path in paths:
        twin = expert.get_submodule(path)
        assert isinstance(twin, TwinAttention)
        assert (twin.expert.layer_name, twin.antiexpert.layer_name) == (f"expert.{path}", f"antiexpert.{path}")
    assert [name for name, _ in expert.named_parameters()] == parameters, "a twin brings no weights"


@needs_cpu
@pytest.mark.parametrize("layer", ["linear", "logits"])
def test_adapters_reach_the_first_half_alone(layer: str) -> None:
    """By vLLM's own wrapper, which knows of as many rows as there are tokens."""
    torch.manual_seed(0)
    wrapper = PunicaWrapperCPU(16, 16, "cpu")
    ids = (7, 3, 7)
    wrapper.update_metadata(LoRAMapping(ids, ids, is_prefill=True), [7, 3], 3, VOCABULARY)
    slots = Slots.empty(2, 4, WIDTH, (VOCABULARY,))
    filled = {id: slots.fill(slot, 0, rank=4) for slot, id in enumerate((7, 3))}
    x, y = torch.randn(6, WIDTH), torch.randn(6, VOCABULARY)
    expected = y.clone()
    for row, id in enumerate(ids):
        a, b = filled[id]
        expected[row] += b @ (a @ x[row])
    rows = ExpertRows(wrapper)
    if layer == "linear":
        rows.add_lora_linear(y, x, slots.a, slots.b, 1.0, slots.widths)
    else:
        rows.add_lora_logits(y, x, slots.a[0], slots.b[0], 1.0)
    torch.testing.assert_close(y, expected)
    assert torch.equal(y[3:], expected[3:])


class Wrapper:
    """As much of vLLM's wrapper as a layer asks for: every row of a step gets 1 more, or 5 where it embeds."""

    def add_lora_linear(self, y: torch.Tensor, x: torch.Tensor) -> None:
        y += 1

    def add_lora_embedding(self, y: torch.Tensor) -> None:
        y += 5


class Layer(BaseLayerWithLoRA):
    """A layer as vLLM wraps it for adapters: it does nothing else than they do."""

    def __init__(self, wrapper: Wrapper) -> None:
        super().__init__()
        self.set_mapping(wrapper)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        self.punica_wrapper.add_lora_linear(y, x)
        return y

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        self.punica_wrapper.add_lora_embedding(x)
        return x


class Model(nn.Module):
    """As much of a model as vLLM's have, which notes how many rows come by."""

    def __init__(self, *, gathers: bool = True) -> None:
        super().__init__()
        self.config = PreTrainedConfig(hidden_size=2)
        self.layer = Layer(Wrapper())
        self.rows: list[int] = []
        self.seen: list[tuple[int, int]] = []
        self._gathers = gathers

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(input_ids))
        return self.layer.embed(input_ids.float().unsqueeze(1).repeat(1, 2))

    def forward(self, input_ids: None, positions: torch.Tensor, *, inputs_embeds: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(inputs_embeds))
        self.seen.append((inputs_embeds.data_ptr(), positions.data_ptr()))
        added: torch.Tensor = self.layer(inputs_embeds) + 100 * positions.unsqueeze(1)
        return added

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
        self.rows.append(len(hidden))
        return 2 * hidden if self._gathers else None


def test_one_pass_gives_both() -> None:
    model = Model()
    twins = Twins(model, 4)
    twins.narrow_adapters()
    expert, antiexpert = twins.hidden(torch.tensor([3, 4]), torch.tensor([0, 1]))
    assert expert.tolist() == [[9, 9], [110, 110]]
    assert antiexpert.tolist() == [[8, 8], [109, 109]]
    logits = twins.logits(expert[1:], antiexpert[1:])
    assert logits is not None
    assert [each.tolist() for each in logits] == [[[220, 220]], [[218, 218]]]
    assert model.rows == [2, 4, 2], "the tokens are embedded once"


def test_a_rank_that_gathers_no_logits_has_none() -> None:
    assert Twins(Model(gathers=False), 4).logits(torch.zeros(1, 2), torch.zeros(1, 2)) is None


def test_every_step_lies_where_the_first_one_did() -> None:
    """CUDA graphs read their input there again."""
    model = Model()
    twins = Twins(model, 4)
    for tokens in ([3, 4], [5], [6, 7, 8, 9]):
        twins.hidden(torch.tensor(tokens), torch.arange(len(tokens)))
    assert len(set(model.seen)) == 1


def test_attention_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="the small model's attention is not vLLM's own"):
        join_attention(nn.Linear(1, 1), nn.Linear(1, 1))
