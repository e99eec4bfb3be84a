"""Predictions are compared as they are, in float32, whatever type the weights are stored in."""

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from loraloom.adapters.convert.probe import MAX_TOKENS, Probe, compare, predictions, read_probe
from loraloom.adapters.errors import InvalidAdapter

PROBE = Probe("built-in", ((1, 5, 9, 40, 41, 42), (7, 8)))


def test_divergence_is_the_textbooks() -> None:
    torch.manual_seed(0)
    original, other = torch.randn(150, 11), torch.randn(150, 11)
    found = compare(original, other)
    p, q = original.double().softmax(-1), other.double().softmax(-1)
    assert found.kl == pytest.approx(float((p * (p / q).log()).sum(-1).mean()))
    assert found.top1 == float((p.argmax(-1) == q.argmax(-1)).double().mean())
    assert compare(other, original).kl != pytest.approx(found.kl, rel=1e-3)


def test_equal_predictions_do_not_diverge() -> None:
    logits = torch.randn(9, 5)
    assert compare(logits, logits + 3).kl < 1e-12
    assert compare(logits, logits).top1 == 1


def test_impossible_predictions_are_seen() -> None:
    logits = torch.randn(3, 5)
    assert not compare(logits, logits * float("nan")).kl < 1


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("adapted", [False, True])
def test_narrow_weights_predict_as_the_same_numbers_in_float32(
    tiny_base: Path, biased_base: Path, tied: bool, adapted: bool
) -> None:
    narrow = AutoModelForCausalLM.from_pretrained(tiny_base if tied else biased_base, dtype=torch.bfloat16).eval()
    model = copy.deepcopy(narrow).float()
    if adapted:
        torch.manual_seed(1)
        config = LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights="gaussian", use_dora=True)
        narrow, model = get_peft_model(narrow, config), get_peft_model(model, config)
        state = {name: weight for name, weight in narrow.state_dict().items() if "lora_" in name}
        model.load_state_dict({name: weight.float() for name, weight in state.items()}, strict=False)
    before = {name: (weight.clone(), weight.dtype) for name, weight in narrow.named_parameters()}
    found = predictions(narrow.eval(), PROBE)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, predictions(model.eval(), PROBE), atol=1e-5, rtol=1e-5)
    for name, weight in narrow.named_parameters():
        assert (weight.dtype, torch.equal(weight, before[name][0])) == (before[name][1], True)


def test_windows_are_predicted_by_themselves(tiny_base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    both = predictions(model, PROBE)
    assert both.shape == (PROBE.tokens, 96)
    for start, window in ((0, PROBE.windows[0]), (6, PROBE.windows[1])):
        with torch.no_grad():
            alone = model(torch.tensor([window])).logits[0]
        torch.testing.assert_close(both[start : start + len(window)], alone)


def test_long_texts_are_cut(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("select the date " * 2000)
    probe = read_probe(tmp_path / "long.txt", AutoTokenizer.from_pretrained(tiny_base))
    assert probe.tokens == MAX_TOKENS
    assert len(probe.windows) == 4
    assert len(probe.name) == 64


def test_the_built_in_text_is_named(tiny_base: Path) -> None:
    assert read_probe(None, AutoTokenizer.from_pretrained(tiny_base)).name == "built-in"


def test_texts_that_are_not_there_or_empty_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, message in (("empty.txt", "is empty"), ("binary", "cannot be read"), ("absent", "cannot be read")):
        with pytest.raises(InvalidAdapter, match=message):
            read_probe(tmp_path / name, tokenizer)
