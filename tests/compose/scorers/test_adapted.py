import pytest
import torch

from loraloom.adapters.arithmetic.factors import Factors
from loraloom.compose.errors import InvalidPool
from loraloom.compose.scorers.adapted import AdaptedModel
from tests.compose.scorers.architectures import tiny

TOKENS = torch.tensor([[1, 5, 9, 20]])


def factors(out: int, inputs: int, rank: int = 2) -> Factors:
    generator = torch.Generator().manual_seed(out + inputs)
    return Factors(torch.randn(rank, inputs, generator=generator), torch.randn(out, rank, generator=generator))


QUERY = {"model.layers.0.self_attn.q_proj": factors(32, 32)}


@pytest.mark.parametrize(
    ("name", "path"),
    [("llama", "model.layers.1.mlp.down_proj"), ("llama", "lm_head"), ("gpt2", "transformer.h.0.attn.c_attn")],
)
def test_a_linear_layer_of_either_kind_gets_the_update(name: str, path: str) -> None:
    model, changed = tiny(name), tiny(name)
    weight = changed.get_submodule(path).weight
    assert isinstance(weight, torch.Tensor)
    out, inputs = reversed(weight.shape) if name == "gpt2" else weight.shape
    update = factors(out, inputs)
    merged = update.b @ update.a
    weight.data = weight.data + 0.5 * (merged.T if name == "gpt2" else merged)  # not in place: a head may be tied
    adapted = AdaptedModel(model, [{path: update}], "exact")
    with torch.inference_mode():
        expected = changed(TOKENS).logits
        with adapted.under([(0.5,)]):
            torch.testing.assert_close(model(TOKENS).logits, expected, rtol=1e-4, atol=1e-4)
        plain = model(TOKENS).logits
    assert (plain - expected).abs().max() > 0.05


def test_candidates_are_gone_afterwards_also_when_something_failed() -> None:
    model = tiny("llama")
    with torch.inference_mode():
        before = model(TOKENS).logits
        adapted = AdaptedModel(model, [QUERY], "exact")
        with pytest.raises(RuntimeError), adapted.under([(1.0,)]):
            raise RuntimeError
        assert torch.equal(model(TOKENS).logits, before)


def test_a_module_that_the_base_lacks_is_refused() -> None:
    with pytest.raises(InvalidPool, match=r"no module model.layers.7.self_attn.q_proj"):
        AdaptedModel(tiny("llama"), [{"model.layers.7.self_attn.q_proj": factors(32, 32)}], "exact")


def test_what_is_no_linear_layer_is_refused() -> None:
    with pytest.raises(InvalidPool, match="is a LlamaRMSNorm: only linear layers"):
        AdaptedModel(tiny("llama"), [{"model.norm": factors(32, 32)}], "exact")


@pytest.mark.parametrize("method", ["exact", "lorahub"])
def test_another_shape_than_the_bases_is_refused_and_the_model_left_as_it_was(method: str) -> None:
    model = tiny("llama")
    before = dict(model.named_modules())
    pool = [{**QUERY, "model.layers.0.self_attn.v_proj": factors(32, 32)}]
    with pytest.raises(InvalidPool, match=r"v_proj is 16 x 32 \(out x in\) in the base, and 32 x 32"):
        AdaptedModel(model, pool, method)
    assert dict(model.named_modules()) == before
