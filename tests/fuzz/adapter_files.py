"""The two files of an adapter, or almost: headers that lie, and configurations of any JSON."""

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from loraloom.adapters.safetensors_header import write_header
from tests.fuzz.jsons import SPELLINGS, scalars, spelled, values
from tests.fuzz.mutations import mutated

MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj", "lm_head", "a.experts.0.up_proj")
SIZES = (0, 1, 2, 8, 576, 2**20, 2**31, 2**32 + 1, 2**40, 2**62, 2**63, 2**64, 10**12, 10**30, -1, 1.0, True, "1")
NAMES = (
    *("__metadata__", "", "a", "\0", "\ud800", "base_model.model.lora_A.weight", "base_model.model.a.lora_A.default"),
    *("base_model.model.a.lora_magnitude_vector", "base_model.model.a.base_layer.weight", "base_model.model.x.weight"),
    *("base_model.model." + "a." * 2000 + "lora_A.weight", "../x", "base_model.model.a.lora_embedding_A", "x" * 10**5),
)
DTYPES = ("F32", "F16", "BF16", "F64", "I8", "F4", "F6_E2M3", "BOOL", "f32", "C64", None, 1, [])


def tensor_name(module: str, factor: str) -> str:
    return f"base_model.model.{module}.lora_{factor}.weight"


@st.composite
def tensors(draw: st.DrawFn) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, type and shape of the tensors of an adapter."""
    rank, dtype = draw(st.integers(1, 4)), draw(st.sampled_from(("F32", "F16", "BF16")))
    modules = draw(st.lists(st.sampled_from(MODULES[:3]), min_size=1, max_size=3, unique=True))
    shapes = {"A": (rank, 8), "B": (8, rank)}
    return [(tensor_name(module, factor), dtype, shapes[factor]) for module in modules for factor in "AB"]


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    """A header as JSON, mostly with something wrong in it."""
    header, _ = write_header(draw(tensors()))
    found: dict[str, Any] = json.loads(header[8:])
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2)))):
        name = draw(st.sampled_from(sorted(found)))
        match draw(st.sampled_from(("dtype", "shape", "data_offsets", "any", "rename", "add", "drop", "key"))):
            case "dtype":
                found[name] = {**_entry(found, name), "dtype": draw(st.sampled_from(DTYPES))}
            case "shape" | "data_offsets" as key:
                sizes = st.lists(st.sampled_from(SIZES) | st.integers(0, 300), max_size=draw(st.sampled_from((2, 20))))
                found[name] = {**_entry(found, name), key: draw(sizes | values)}
            case "any":
                found[name] = draw(values)
            case "rename":
                found[draw(st.sampled_from(NAMES))] = found.pop(name)
            case "add":
                found[draw(st.sampled_from(NAMES))] = draw(values | st.just(found[name]))
            case "drop" if len(found) > 1:
                del found[name]
            case _:
                found[name] = {**_entry(found, name), draw(st.sampled_from(NAMES)): draw(scalars)}
    return found


def _entry(found: dict[str, Any], name: str) -> dict[str, Any]:
    return found[name] if isinstance(found[name], dict) else {}


@dataclass(frozen=True)
class Weights:
    """A weights file: its first bytes, and its size; what is between is a hole, which takes no space.

    Attributes:
        head: length and header.
        size: of the whole file.
    """

    head: bytes
    size: int


@st.composite
def weights(draw: st.DrawFn) -> Weights:
    """A weights file, whose header or size is mostly wrong."""
    header = draw(entries())
    text = json.dumps(header, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    text = draw(st.just(text) | mutated(st.just(text), SPELLINGS))
    text += b" " * draw(st.sampled_from((0, -len(text) % 8, 1000)))
    lengths = st.sampled_from((0, 1, 2**25, 2**25 + 1, 10**12, 2**63, 2**64 - 1)) | st.integers(0, len(text) + 9)
    length = draw(st.sampled_from((len(text),) * 9 + (None,)))
    head = (draw(lengths) if length is None else length).to_bytes(8, "little") + text
    rest = max((_end(entry) for entry in header.values()), default=0)
    size = len(head) + rest + draw(st.sampled_from((0,) * 9 + (1, -1, 10**12)))
    return Weights(head[: max(0, size)], max(0, size))


def _end(entry: object) -> int:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    last = offsets[-1] if isinstance(offsets, list) and offsets else 0
    return last if type(last) is int and 0 <= last <= 10**12 else 0


PARTS = (
    *(
        "q_proj",
        "model",
        "layers",
        ".",
        r"\.",
        "0",
        ".*",
        ".+",
        "[0-9]",
        r"\d+",
        "^",
        "$",
        "(",
        ")",
        "|",
        "?",
        "+",
        "*",
    ),
    *(
        "(?:",
        "(?=",
        "(?!",
        "(?<=",
        "(?P<a>",
        "(?P=a)",
        "(?i:",
        "(?i)",
        "(?R)",
        "(?1)",
        "(?V0)",
        "(?V1)",
        "(?e)",
        r"\L<a>",
    ),
    *("{2}", "{1000}", "{0,1000}", "{1000000}", "{,9}", "{e}", "{3,", "[[", "[a&&[b", "[^", "]", "\\", r"\1", r"\p{L}"),
    *("(.*)*", "((a|aa)+)+b", "(.*.*.*)", "\ud800", "\0", "a" * 500, "(" * 200, "(?:.*){99}", "(.*){9}", ")*"),
)
patterns = st.lists(st.sampled_from(PARTS), min_size=1, max_size=8).map("".join) | st.sampled_from(MODULES)

kinds = st.sampled_from(("LORA", "ADALORA", "IA3", "VERA", "PROMPT_TUNING", "lora", "x" * 5000)) | values
fields = {
    "peft_type": st.sampled_from(("LORA",) * 12) | kinds,
    "r": st.integers(1, 4) | values,
    "lora_alpha": st.integers(1, 16) | st.sampled_from((1e30, -1.5, 0, 1e-300)) | values,
    "use_rslora": st.booleans() | values,
    "rank_pattern": st.dictionaries(patterns, st.integers(1, 4) | scalars, max_size=3) | values,
    "alpha_pattern": st.dictionaries(patterns, st.integers(1, 4) | scalars, max_size=3) | values,
    "base_model_name_or_path": st.text(max_size=9) | values,
    "task_type": st.sampled_from(("CAUSAL_LM", None, "x")) | values,
    "init_lora_weights": st.booleans() | st.sampled_from(("pissa", "pissa_niter_4", "eva", "olora")) | values,
    "use_dora": st.booleans() | values,
    "fan_in_fan_out": st.just(False) | values,
    "target_modules": values | patterns,
    "modules_to_save": values,
    "loraloom_normal_form": st.sampled_from((1, 0)) | values,
}
_needed = {key: fields[key] for key in ("peft_type", "r", "lora_alpha")}
_further = {key: fields[key] for key in fields if key not in _needed}
_sound = {"peft_type": st.just("LORA"), "r": st.integers(1, 4), "lora_alpha": st.integers(1, 16)}
_patterns = {key: fields[key] for key in ("rank_pattern", "alpha_pattern", "use_rslora", "loraloom_normal_form")}
configs = st.one_of(
    st.fixed_dictionaries(_sound, optional=_patterns),
    st.fixed_dictionaries(_sound, optional=_further),
    st.fixed_dictionaries(_needed, optional=_further),
    values,
)
config_texts = configs.map(lambda value: json.dumps(value).encode()) | spelled(configs)
