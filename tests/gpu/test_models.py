from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from loraloom.adapters.base import fingerprint
from tests.gpu.models import EIGHT_B, FIRST_WORD, ONE_B, SEVEN_B, TINY, coarse, write_dummy, write_random


def test_a_dummy_takes_no_room_and_has_the_shapes_of_a_real_one(tmp_path: Path) -> None:
    base = fingerprint(write_dummy(tmp_path / "7b", SEVEN_B))
    assert base.modules["model.layers.31.mlp.down_proj"] == (4096, 11008)
    assert len(base.modules) == 32 * 7 + 2
    weights = (tmp_path / "7b/model.safetensors").stat()
    assert weights.st_size > 13e9
    assert weights.st_blocks * 512 < 1e6


def test_a_dummy_that_is_there_stays(tmp_path: Path) -> None:
    write_dummy(tmp_path, TINY)
    before = (tmp_path / "config.json").stat().st_mtime_ns
    assert write_dummy(tmp_path, TINY) == tmp_path
    assert (tmp_path / "config.json").stat().st_mtime_ns == before


def test_transformers_reads_the_random_model(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(write_random(tmp_path, TINY), dtype=torch.float32)
    assert {name: tuple(each.shape) for name, each in model.state_dict().items()} == dict(TINY.tensors)
    logits = model(torch.tensor([[5, 300, 17]])).logits
    assert 0.5 < logits.std() < 5


def test_text_survives_the_tokenizer_and_every_id_has_a_text(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write_dummy(tmp_path, TINY))
    text = "Grüße, 3 < 4\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.eos_token_id == 0
    assert len(tokenizer) == TINY.vocab_size
    assert tokenizer.decode([FIRST_WORD, FIRST_WORD + 1]) == " 257 258"
    turns = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False) == "user: Hi\nassistant:"


def test_coarse_numbers_are_in_both_types_and_near() -> None:
    numbers = np.random.default_rng(0).standard_normal(100_000, dtype=np.float32) * np.float32(0.01)
    found = torch.from_numpy(coarse(numbers))
    assert torch.equal(found.bfloat16().half(), found)
    assert torch.allclose(found.float(), torch.from_numpy(numbers), rtol=2**-8, atol=2**-17)


def test_the_shapes_of_llama_3_are_those_of_the_real_ones() -> None:
    counts = [sum(int(np.prod(sizes)) for _, sizes in shape.tensors) for shape in (EIGHT_B, ONE_B)]
    assert counts == [8_030_261_248, 1_235_814_400]
