"""`python -m tests.e2e.proxy_pairs FOLDER`: pairs of small seeded models through vLLM and through transformers.

A process of its own: vLLM binds the threads of the process that it computes in. Prints a line of JSON.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from loraloom.adapters.base import fingerprint
from loraloom.adapters.methods import EXACT
from loraloom.adapters.mixtures.recipe import Ingredient
from loraloom.adapters.store import Store
from loraloom.server.proxy.pair import ARCHITECTURE, Pair
from loraloom.server.proxy.variant import Variant, write_variant
from tests.e2e.proxy_reference import ThreeModels

LENGTH = 24
REAL_TOKENS = 96
"""Ids below this are tokens; the rest of each vocabulary is padding."""
PROMPTS = ([3, 17, 42, 5, 66, 21, 9], [80, 4, 4, 31], list(range(10, 60)))


@dataclass(frozen=True)
class Kind:
    """A model to make: transformers' name of its kind, and fields of its configuration."""

    name: str
    fields: dict[str, Any]


def _kind(name: str, layers: int, hidden: int, heads: int, kv: int, vocabulary: int, tied: bool, **more: Any) -> Kind:
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": 2 * hidden}
    attention = {"num_attention_heads": heads, "num_key_value_heads": kv, "max_position_embeddings": 256}
    return Kind(name, {**sizes, **attention, "vocab_size": vocabulary, "tie_word_embeddings": tied, **more})


LLAMA = _kind("Llama", 4, 128, 4, 2, 104, tied=False)
SMALL_LLAMA = _kind("Llama", 2, 64, 2, 1, 96, tied=True)
PAIRS = {
    "other depth, width and heads": (LLAMA, SMALL_LLAMA),
    "a small vocabulary with more padding": (
        _kind("Llama", 3, 128, 4, 4, 96, tied=True),
        _kind("Llama", 2, 96, 3, 1, 112, tied=False),
    ),
    "Qwen3 by Llama": (_kind("Qwen3", 3, 128, 2, 1, 104, tied=True, head_dim=64), SMALL_LLAMA),
    "Llama by Qwen2": (LLAMA, _kind("Qwen2", 2, 64, 2, 2, 96, tied=False)),
    "an expert of its own": (LLAMA, SMALL_LLAMA),
}
"""The pairs, large and small, by what is special about them."""


@dataclass(frozen=True)
class Case:
    """One request: the adapters of the small and of the large model, if any, and the strength."""

    steering: str | None = None
    alpha: float | None = None
    direct: str | None = None


CASES = (
    Case(),
    Case("one", 1.0),
    Case("one", 0.3),
    Case("two", 2.0),
    Case("one", 0.0),
    Case(None, None, "own"),
    Case("two", -0.7, "own"),
)


@dataclass
class Found:
    """What differed.

    Attributes:
        tokens: cases whose tokens are not the reference's.
        logprob: the largest difference of a log-probability.
        distinct: cases that answer differently, so that equality means something.
    """

    tokens: list[str] = field(default_factory=list)
    logprob: float = 0.0
    distinct: int = 0


def compare(name: str, folder: Path) -> Found:
    """Answer every case in one batch, and compare."""
    kinds, own_expert = PAIRS[name], name == "an expert of its own"
    large, small = (_make(kind, folder / side, seed) for kind, side, seed in zip(kinds, "ls", (1, 2), strict=True))
    expert = _make(kinds[1], folder / "expert", seed=3) if own_expert else small
    adapters = {name: _adapter(small, folder / name, seed) for name, seed in (("one", 4), ("two", 5))}
    own = {"own": _adapter(large, folder / "own", 6)}
    alpha = 0.6
    pair = Pair(_architectures(large), str(small), str(expert) if own_expert else None, alpha)
    write = partial(_variant, Store.open(folder / "store"), pair, {**adapters, **own}, (large, small), folder)
    answers = _engine(large, pair, [(write(case) if case != Case() else None) for case in CASES])
    reference = ThreeModels(large, small, adapters, own, expert)
    tokens_of = [tokens for tokens, _ in answers]
    cases = {tuple(tokens_of[first : first + len(PROMPTS)]) for first in range(0, len(answers), len(PROMPTS))}
    found = Found(distinct=len(cases))
    for (case, prompt), (tokens, logprobs) in zip(_requests(), answers, strict=True):
        strength = case.alpha if case.alpha is not None else alpha if own_expert else 0.0
        (wanted,) = reference.greedy(prompt, LENGTH, case.steering, [strength], case.direct)
        if tokens != wanted.tokens:
            found.tokens.append(f"{case} {prompt[:3]}")
        differences = (abs(one - other) for one, other in zip(logprobs, wanted.logprobs, strict=True))
        found.logprob = max(found.logprob, *differences)
    return found


def _requests() -> list[tuple[Case, list[int]]]:
    return [(case, prompt) for case in CASES for prompt in PROMPTS]


Answer = tuple[tuple[int, ...], tuple[float, ...]]


def _engine(large: Path, pair: Pair, variants: Sequence[Path | None]) -> list[Answer]:
    """Greedy tokens and their log-probabilities, all requests in one batch that does not fit into the slots."""
    from vllm import LLM, ModelRegistry, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.lora.request import LoRARequest

    from loraloom.server.kernels.install import install

    install()
    ModelRegistry.register_model(ARCHITECTURE, "loraloom.server.proxy.composite.model:ProxyForCausalLM")
    engine = LLM(
        str(large),
        hf_overrides=json.loads(pair.overrides()),
        skip_tokenizer_init=True,
        dtype="float32",
        max_model_len=128,
        max_num_seqs=4,
        max_num_batched_tokens=16,
        enable_lora=True,
        max_loras=2,
        max_cpu_loras=8,
        max_lora_rank=8,
    )
    loras = [folder and LoRARequest(folder.name, number + 1, str(folder)) for number, folder in enumerate(variants)]
    sampling = SamplingParams(max_tokens=LENGTH, temperature=0, logprobs=0, ignore_eos=True, detokenize=False)
    prompts: Any = [{"prompt_token_ids": prompt} for _, prompt in _requests()]
    requests = [lora for lora in loras for _ in PROMPTS]
    last_row: Any = {"prompt_token_ids": [3, engine.llm_engine.model_config.get_vocab_size() - 1, 5]}
    engine.generate(last_row, sampling, use_tqdm=False)  # padding of the large model, of which the small has less
    answers = []
    for output in engine.generate(prompts, sampling, lora_request=requests, use_tqdm=False):
        (best,) = output.outputs
        chosen = zip(best.token_ids, best.logprobs, strict=True)
        answers.append((tuple(best.token_ids), tuple(entries[token].logprob for token, entries in chosen)))
    del engine
    cleanup_dist_env_and_memory()
    return answers


def _make(kind: Kind, folder: Path, seed: int) -> Path:
    import transformers

    config = getattr(transformers, f"{kind.name}Config")(**kind.fields, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind.name}ForCausalLM")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # as made, all tokens are about equally likely
            if "embed" in name or "lm_head" in name:
                parameter.normal_(std=0.5)
                parameter[REAL_TOKENS:] = 0  # never the most likely ones
            elif parameter.ndim == 2:
                parameter.normal_(std=0.12)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder


def _adapter(model: Path, folder: Path, seed: int) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model)
    targets = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    targets += [] if base.config.tie_word_embeddings else ["lm_head"]
    adapted = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.15, generator=generator)
    adapted.save_pretrained(folder)
    return folder


def _variant(
    store: Store, pair: Pair, adapters: dict[str, Path], models: tuple[Path, Path], folder: Path, case: Case
) -> Path:
    """The variant that a case asks for, written as the gate writes it."""
    ingredients, sources = [], []
    for name, model in ((case.direct, models[0]), (case.steering, models[1])):
        if name is not None:
            record = store.publish(adapters[name], name, base=fingerprint(model), base_name=model.name).version
            ingredients.append(Ingredient(1.0, record))
            sources.append((1.0, store.acquire(record.digest)))
    steering = frozenset(each.version.canonical for each in ingredients if each.version.name != "own")
    variant = Variant(EXACT, tuple(ingredients), steering, case.alpha, "base")
    out = folder / "variants" / str(CASES.index(case))
    out.mkdir(parents=True)
    write_variant(variant, sources, out, None)
    return out


def _architectures(model: Path) -> tuple[str, ...]:
    return tuple(json.loads((model / "config.json").read_bytes())["architectures"])


if __name__ == "__main__":
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    print(json.dumps({name: asdict(compare(name, Path(sys.argv[1], name))) for name in PAIRS}), flush=True)
