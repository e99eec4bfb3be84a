"""What is added to the engine's command line for a pair of models."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from loraloom.adapters.errors import InvalidBase
from loraloom.server.errors import InvalidSettings, ProxyMismatch
from loraloom.server.footprint import Footprint, read_footprint
from loraloom.server.proxy.launching import ProxyLaunch, plan_proxy
from loraloom.server.proxy.pair import ARCHITECTURE, FIELD, Pair
from loraloom.server.settings import Settings
from tests.server.proxy.configurations import LLAMA31_8B, LLAMA32_1B, SPECIAL, TOKENIZER, Config, write_model

Plan = Callable[..., ProxyLaunch]
WEIGHTS = {"model.embed_tokens.weight": (4, 8)}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A callable `plan(*extra, large=…, small=…, **settings)` for two models with these in their configurations."""

    def planned(*extra: str, large: Config | None = None, small: Config | None = None, **fields: object) -> ProxyLaunch:
        folders = tmp_path / "large", tmp_path / "small"
        for folder, config, changes in zip(folders, (LLAMA31_8B, LLAMA32_1B), (large, small), strict=True):
            write_model(folder, {**config, **(changes or {})}, weights=WEIGHTS)
        settings = {"model": str(folders[0]), "proxy_small": str(folders[1]), **fields}
        return plan_proxy(Settings.model_validate(settings), extra)

    return planned


def footprint(folder: Path) -> Footprint:
    found = read_footprint(folder)
    assert found is not None
    return found


def test_without_a_small_model_nothing_is_added(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", LLAMA31_8B)
    launch = plan_proxy(Settings(model=str(model)), ["--quantization", "fp8", "-pp", "2"])
    assert launch == ProxyLaunch(footprint=footprint(model))


def test_the_pair_goes_into_the_large_models_configuration(plan: Plan, tmp_path: Path) -> None:
    flag, overrides = plan("--seed", "1", proxy_alpha=0.7).arguments
    assert flag == "--hf-overrides"
    fields = json.loads(overrides)
    assert fields["architectures"] == [ARCHITECTURE]
    assert Pair.of(fields[FIELD]) == Pair(("LlamaForCausalLM",), str(tmp_path / "small"), None, 0.7)


def test_the_user_is_told_what_is_computed(plan: Plan, tmp_path: Path) -> None:
    (first, *others) = plan(proxy_alpha=0.7).notes
    large, small = tmp_path / "large", tmp_path / "small"
    assert first == f"proxy-tuning: {large} + 0.7 * ({small} with the request's adapter - {small})"
    assert all(note.startswith("proxy-tuning: ") for note in others)


def test_also_with_an_expert_of_its_own(plan: Plan, tmp_path: Path) -> None:
    expert = str(write_model(tmp_path / "tuned", LLAMA32_1B, weights=WEIGHTS))
    launch = plan(proxy_expert=expert)
    assert launch.notes[0] == f"proxy-tuning: {tmp_path / 'large'} + 1 * ({expert} - {tmp_path / 'small'})"
    assert Pair.of(json.loads(launch.arguments[1])[FIELD]).expert == expert


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (["--hf-overrides", "{}"], "--hf-overrides does not go with --proxy-small: .* change its config.json instead"),
        (["--hf_overrides={}"], "--hf-overrides does not"),
        (["--hf-overrides.rope_theta", "1"], "--hf-overrides does not"),
        (["--speculative-config", "{}"], "--speculative-config does not .* a draft model"),
        (["--speculative_config.method=ngram"], "--speculative-config does not"),
        (["-sc", "{}"], "--speculative-config does not"),
        (["--spec-model", "m"], "a draft model"),
        (["--spec-method=ngram"], "a draft model"),
        (["--fully-sharded-loras"], "--fully-sharded-loras does not .* only the first get adapters"),
        (["--enable-prompt-embeds"], "the small model needs the tokens"),
        (["--lora-target-modules", "q_proj"], "a request's strength"),
        (["--model-impl=transformers"], "attention has to be vLLM's own"),
        (["--tokenizer", "other"], "put the other one into the models' folders"),
        (["--hf-config-path", "other"], "the models' own config.json"),
        (["--revision", "main"], "a folder of that revision"),
        (["--load-format", "runai_streamer"], "it reads one checkpoint only; give one of auto, "),
        (["--quantization", "fp8"], "--quantization does not .* give a large model that is stored quantized"),
        (["--quant=fp8"], "--quantization does not"),
        (["-q", "fp8"], "--quantization does not"),
        (["-qfp8"], "--quantization does not"),
        (["--pipeline-parallel-size", "2"], "--pipeline-parallel-size does not .* Use --tensor-parallel-size"),
        (["--pipeline_parallel_size=2"], "--pipeline-parallel-size does not"),
        (["-pp", "2"], "-pp does not"),
    ],
)
def test_arguments_that_do_not_go_with_it(plan: Plan, extra: list[str], reason: str) -> None:
    with pytest.raises(InvalidSettings, match=reason):
        plan("--seed", "1", *extra)


def test_arguments_that_do(plan: Plan) -> None:
    extra = (
        "-pp",
        "1",
        "-tp",
        "2",
        "--load-format",
        "dummy",
        "--tokenizer-mode",
        "auto",
        "--max-num-seqs=4",
        "--quality",
        "--served",
        "small.q",
        "--enforce-eager",
    )
    assert len(plan(*extra).arguments) == 2


def test_models_that_do_not_fit(tmp_path: Path) -> None:
    other = {**TOKENIZER, "model": {"type": "BPE", "vocab": {"b": 0, "a": 1, "ab": 2}, "merges": []}}
    large = write_model(tmp_path / "large", LLAMA31_8B)
    small = write_model(tmp_path / "small", LLAMA32_1B, other, SPECIAL)
    with pytest.raises(ProxyMismatch, match="small cannot steer .*large: the tokenizers differ"):
        plan_proxy(Settings(model=str(large), proxy_small=str(small)), [])
    with pytest.raises(InvalidBase):
        plan_proxy(Settings(model=str(large), proxy_small=str(tmp_path / "missing")), [])


def test_models_of_one_name(plan: Plan) -> None:
    """Requests, records and messages could not tell them apart."""
    with pytest.raises(InvalidSettings, match="both models are called 'small': give the large one a --served-name"):
        plan(served_name="small")


SHORT = {"max_position_embeddings": 2048}


@pytest.mark.parametrize(
    ("extra", "added"),
    [
        ([], ["--max-model-len", "2048"]),
        (["--max-model-len", "1024"], []),
        (["--max-model-len=2048"], []),
    ],
)
def test_the_small_models_context_is_the_longest(plan: Plan, extra: list[str], added: list[str]) -> None:
    assert list(plan(*extra, small=SHORT).arguments[2:]) == added


@pytest.mark.parametrize("length", ["4096", "128k", "-1", "auto"])
def test_a_longer_one_is_refused(plan: Plan, length: str) -> None:
    with pytest.raises(ProxyMismatch, match=f"--max-model-len {length}: the small model knows 2048 positions"):
        plan("--max-model-len", length, small=SHORT)


def test_heads_that_cannot_be_divided(plan: Plan) -> None:
    with pytest.raises(ProxyMismatch, match="--tensor-parallel-size 3 does not divide the small model's 32 attention"):
        plan("--tensor-parallel-size", "3")


def test_a_plain_large_model_that_nobody_could_select(plan: Plan, tmp_path: Path) -> None:
    expert = str(write_model(tmp_path / "tuned", LLAMA32_1B, weights=WEIGHTS))
    with pytest.raises(InvalidSettings, match="selected by its name and '~0', and .*: give it a --served-name"):
        plan(proxy_expert=expert, served_name="llama3:70b")


def test_without_an_expert_of_its_own_any_name_will_do(plan: Plan) -> None:
    assert plan(served_name="llama3:70b").arguments


@pytest.mark.parametrize("large", [{}, SHORT])
def test_a_small_model_with_the_longer_context_adds_nothing(plan: Plan, large: Config) -> None:
    assert len(plan(large=large).arguments) == 2


def test_all_models_together_take_memory(plan: Plan, tmp_path: Path) -> None:
    together = plan(small=SHORT).footprint
    large, small = footprint(tmp_path / "large"), footprint(tmp_path / "small")
    assert together == Footprint(
        weights=large.weights + small.weights,
        sixteen_bits=True,
        token=large.token + 2 * small.token,
        rank=large.rank + small.rank,
        context=2048,
    )


def test_an_expert_of_its_own_takes_memory_too(plan: Plan, tmp_path: Path) -> None:
    together = plan(proxy_expert=str(write_model(tmp_path / "tuned", LLAMA32_1B, weights=WEIGHTS))).footprint
    assert together is not None
    assert together.weights == footprint(tmp_path / "large").weights + 2 * footprint(tmp_path / "small").weights


def test_sizes_that_are_not_told(plan: Plan) -> None:
    """Half of what is needed would be no help."""
    launch = plan(small={"max_position_embeddings": None, "n_positions": 2048})
    assert launch.footprint is None
