"""`loraloom proxy check`."""

import json
from pathlib import Path

import pytest

from tests.server.cli.conftest import Loraloom
from tests.server.cli.test_main import HEAVY, after
from tests.server.proxy import configurations as known


@pytest.fixture(autouse=True)
def models(home: Path) -> None:
    """Models in the working directory, without their weights."""
    known.write_model(home / "large", known.LLAMA31_70B)
    known.write_model(home / "small", known.LLAMA31_8B)
    known.write_model(home / "gemma", known.GEMMA2_9B)


def test_models_that_fit(loraloom: Loraloom) -> None:
    outcome = loraloom("proxy", "check", "large", "small")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == (
        "       MODEL  CLASS             PARAMETERS  LAYERS  WIDTH  VOCABULARY  CONTEXT\n"
        "large  large  LlamaForCausalLM  70.6 B      80      8192   128256      131072\n"
        "small  small  LlamaForCausalLM  8.03 B      32      4096   128256      131072\n"
        "\n"
        "note     large has no weights as safetensors here: its sizes are those of its config.json, in 16 bits\n"
        "note     small has no weights as safetensors here: its sizes are those of its config.json, in 16 bits\n"
        "\n"
        "                              LARGE ALONE  --proxy-small  --proxy-expert\n"
        "weights in memory             131.4 GiB    x 1.11         x 1.23\n"
        "KV cache a token              320.0 KiB    x 1.80         x 1.80\n"
        "weights read a decoded token  129.5 GiB    x 1.11         x 1.22\n"
        "operations a token            139 GFLOP    x 1.22         x 1.22\n"
        "The adapter itself, and the part of attention that grows with the context, are left out.\n"
        "\n"
        "they fit: `loraloom serve large --proxy-small small`\n"
    )


def test_models_that_do_not(loraloom: Loraloom) -> None:
    outcome = loraloom("proxy", "check", "small", "gemma")
    assert (outcome.status, outcome.err) == (1, "")
    lines = outcome.out.splitlines()
    assert [line for line in lines if line.startswith("refused")] == [
        "refused  gemma cannot be proxy-tuned: its attention slides over the last 4096 tokens. Take a dense or "
        "mixture-of-experts decoder of text",
        "refused  gemma is larger than small (9.24 B and 8.03 B parameters): name the large model first",
    ]
    assert lines[-1] == "they do not fit: 2 reasons"
    assert "LARGE ALONE" not in outcome.out


def test_an_expert(loraloom: Loraloom) -> None:
    outcome = loraloom("proxy", "check", "large", "small", "--expert", "small")
    assert outcome.status == 0
    assert outcome.out.endswith("they fit: `loraloom serve large --proxy-small small --proxy-expert small`\n")
    assert "\nexpert  small" in outcome.out


def test_a_quantized_large_model(loraloom: Loraloom, home: Path) -> None:
    """Its weights are as large as they are on the disk."""
    packed = known.write_model(home / "packed", {**known.LLAMA31_70B, "quantization_config": {"quant_method": "awq"}})
    known.write_weights(packed / "model.safetensors", {"a.qweight": (2**20, 2**10 * 9)}, "I32")
    out = loraloom("proxy", "check", "packed", "small").out
    assert "70.6 B (awq)" in out
    assert "weights in memory             36.0 GiB     x 1.42" in out


def test_small_models_in_small_units(loraloom: Loraloom, tiny_base: Path) -> None:
    out = loraloom("proxy", "check", tiny_base, tiny_base).out
    costs = [line.split("  ") for line in out.splitlines()]
    found = {line[0]: [cell.strip() for cell in line[1:] if cell] for line in costs}
    assert found["weights in memory"] == ["36.3 KiB", "x 2.00", "x 3.00"]
    assert found["KV cache a token"] == ["128 bytes", "x 3.00", "x 3.00"]


def test_json(loraloom: Loraloom) -> None:
    outcome = loraloom("proxy", "check", "large", "small", "--json")
    facts = json.loads(outcome.out)
    assert (outcome.status, facts["fits"], facts["refusals"], len(facts["notes"])) == (0, True, [], 2)
    assert (facts["large"]["layers"], facts["small"]["name"], facts["expert"]) == (80, "small", None)
    assert facts["costs"]["large"]["cache"] == 327_680
    assert facts["costs"]["proxy_small"]["cache"] == pytest.approx(1.8)
    refused = loraloom("proxy", "check", "small", "gemma", "--json")
    facts = json.loads(refused.out)
    assert (refused.status, facts["fits"], len(facts["refusals"]), facts["costs"]) == (1, False, 2, None)


def test_a_model_that_is_not_there(loraloom: Loraloom) -> None:
    outcome = loraloom("proxy", "check", "large", "nowhere")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith("loraloom: there is no folder 'nowhere'")


def test_folders_are_checked_without_heavy_imports() -> None:
    assert not after("proxy", "check", "large", "small") & HEAVY
