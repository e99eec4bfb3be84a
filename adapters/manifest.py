"""What an adapter is: the modules it changes, their ranks and scalings, checked before any tensor is read."""

import io
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from loraloom.adapters.errors import InvalidAdapter, UnsupportedAdapter
from loraloom.adapters.peft_config import MAX_RANK, parse_config
from loraloom.adapters.safetensors_header import BadHeader, TensorInfo, read_header

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MAX_CONFIG = 2**20
"""Bytes in the longest `adapter_config.json`."""

MAX_NAME = 500
"""Characters in the longest name of a tensor: names are matched with patterns, and told in errors."""

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The types that an adapter's tensors may have: their names in safetensors and in torch."""

_PREFIX = "base_model.model."
_TENSOR = re.compile(r"base_model\.model\.([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\.lora_([AB])\.weight")
_BASE_COPY = re.compile(r"base_model\.model\.(.+)\.base_layer\.weight")
# What tensors of other names hold, by how the name ends.
_OTHER_TENSORS = {
    r"\.lora_magnitude_vector(\.weight)?": "DoRA's magnitudes",
    r"\.lora_embedding_[AB]": "LoRA of the token embedding, which most of vLLM's models do not apply",
    r"\.trainable_tokens_delta": "trained tokens (trainable_token_indices)",
    r"\.base_layer\.weight": "a whole layer of the base",
    r"\.lora_B\.bias": "a LoRA bias",
    r"\.bias": "trained biases",
    r"\.weight": "whole trained modules (modules_to_save)",
}


@dataclass(frozen=True, slots=True)
class Module:
    """The shapes of one module's update B A: B is [out_features, rank], A is [rank, in_features]."""

    rank: int
    in_features: int
    out_features: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the two files of an adapter say.

    Attributes:
        modules: the changed modules by their path in the base model, such as "model.layers.0.self_attn.q_proj".
        scaling: what each module's B A is multiplied with.
        base_model: the base that the adapter names, if it does.
        task_type: PEFT's, such as "CAUSAL_LM", if it is given.
        dtype: "float32", "float16" or "bfloat16", or "mixed".
        tensors: where each A and B lies in the weights file, by its name there.
    """

    modules: Mapping[str, Module]
    scaling: Mapping[str, float]
    base_model: str | None
    task_type: str | None
    dtype: str
    tensors: Mapping[str, TensorInfo] = field(repr=False)

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max(module.rank for module in self.modules.values())

    @property
    def parameters(self) -> int:
        """The number of elements in all tensors."""
        return sum(module.rank * (module.in_features + module.out_features) for module in self.modules.values())


def read_manifest(folder: Path) -> Manifest:
    """What the adapter in `folder` is, from its configuration and the header of its weights.

    Raises:
        InvalidAdapter: the files are missing, damaged or contradict each other.
        UnsupportedAdapter: a sound adapter of a kind that is not plain LoRA.
    """
    config = parse_config(read_config(folder))
    tensors = _lora_tensors(read_tensors(folder))
    modules = _pair(tensors)
    scaling = config.scalings({path: module.rank for path, module in modules.items()})
    dtypes = {DTYPES[info.dtype] for info in tensors.values()}
    return Manifest(
        modules=MappingProxyType(modules),
        scaling=MappingProxyType(scaling),
        base_model=config.base_model,
        task_type=config.task_type,
        dtype=dtypes.pop() if len(dtypes) == 1 else "mixed",
        tensors=MappingProxyType(tensors),
    )


def read_config(folder: Path) -> bytes:
    """The text of the adapter's configuration, unread; raises `InvalidAdapter` unless both of its files are there."""
    _check_files(folder)
    with open_regular(folder / CONFIG_FILE) as file:
        text = file.read(MAX_CONFIG + 1)
    if len(text) > MAX_CONFIG:
        raise InvalidAdapter(f"{CONFIG_FILE} has more than {MAX_CONFIG} bytes: it is not peft's")
    return text


def read_tensors(folder: Path) -> dict[str, TensorInfo]:
    """Where each tensor of the adapter lies in its weights file, by name, of `MAX_NAME` characters at most.

    Raises:
        InvalidAdapter: it is damaged, or a name is too long.
    """
    with open_regular(folder / WEIGHTS_FILE) as file:
        try:
            tensors = read_header(file, os.fstat(file.fileno()).st_size)
        except BadHeader as error:
            raise InvalidAdapter(f"{WEIGHTS_FILE} is damaged: {error}. Copy or download it again") from error
    check_names(tensors)
    return tensors


def check_names(names: Iterable[str]) -> None:
    """Raise `InvalidAdapter` if a tensor's name is too long; call it before any pattern sees the names."""
    for name in names:
        if len(name) > MAX_NAME:
            raise InvalidAdapter(
                f"tensor {name[:200]!r}… has a name of {len(name)} characters, more than the {MAX_NAME} that are read: "
                "save the adapter with peft's save_pretrained"
            )


def tensor_name(path: str, factor: str) -> str:
    """The name of module `path`'s `factor`, "A" or "B", in the weights file."""
    return f"{_PREFIX}{path}.lora_{factor}.weight"


def open_regular(path: Path) -> io.BufferedReader:
    """`path` opened for reading; raises `InvalidAdapter` if it is a link or anything else but a regular file."""
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise InvalidAdapter(
                f"{path.name} is a symbolic link: give the file itself (cp -L resolves links)"
            ) from None
        raise InvalidAdapter(f"{path.name} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidAdapter(f"{path.name} is not a regular file")
    return os.fdopen(descriptor, "rb")


def _check_files(folder: Path) -> None:
    if not folder.is_dir():
        raise InvalidAdapter(f"{folder} is not a folder: give the folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    names = set(os.listdir(folder))
    if WEIGHTS_FILE not in names and CONFIG_FILE in names:
        raise InvalidAdapter(_missing_weights(names))
    if CONFIG_FILE not in names:
        raise InvalidAdapter(f"there is no {CONFIG_FILE}: this is not the folder of a PEFT adapter")


def _missing_weights(names: set[str]) -> str:
    if any(re.fullmatch(r"adapter_model([.-].*)?\.(bin|pt|pth|pkl)", name) for name in names):
        return (
            "only safetensors are read, because a pickle can run any code. Where you trust this one, load it with peft "
            f"and call save_pretrained(folder), which writes {WEIGHTS_FILE}"
        )
    if any(name.startswith("adapter_model") and ".safetensors" in name for name in names):
        return f"the weights are split over several files: save them with peft's save_pretrained as one {WEIGHTS_FILE}"
    return f"there is no {WEIGHTS_FILE} beside {CONFIG_FILE}: save the adapter again with peft's save_pretrained"


def _lora_tensors(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The tensors named lora_A and lora_B; raises for any other, unless it repeats a weight of the base."""
    kept = {name: info for name, info in tensors.items() if _TENSOR.fullmatch(name)}
    for name in tensors:
        # With LoRA on the output layer, peft saves that layer's frozen weight too (save_embedding_layers).
        copy = _BASE_COPY.fullmatch(name)
        if name not in kept and not (copy and tensor_name(copy[1], "A") in kept):
            raise refused_tensor(name)
    if not kept:
        raise InvalidAdapter(f"{WEIGHTS_FILE} holds no tensors: save the adapter again")
    return kept


def _pair(tensors: Mapping[str, TensorInfo]) -> dict[str, Module]:
    """The modules that tensors named lora_A and lora_B make up, by path."""
    factors: dict[str, dict[str, TensorInfo]] = {}
    for name, info in tensors.items():
        _check_matrix(name, info)
        match = _TENSOR.fullmatch(name)
        assert match is not None
        factors.setdefault(match[1], {})[match[2]] = info
    return {path: _module(path, factors[path]) for path in sorted(factors)}


def _module(path: str, pair: Mapping[str, TensorInfo]) -> Module:
    for factor, other in (("A", "B"), ("B", "A")):
        if factor not in pair:
            raise InvalidAdapter(f"module {path} has lora_{other} but no lora_{factor}: save the adapter again")
    (rank, in_features), (out_features, rank_of_b) = pair["A"].shape, pair["B"].shape
    if rank != rank_of_b:
        raise InvalidAdapter(f"module {path} has rank {rank} in lora_A and {rank_of_b} in lora_B")
    if rank > MAX_RANK:
        raise InvalidAdapter(
            f"module {path} has rank {rank}, and at most {MAX_RANK} is read: train the adapter with a smaller r"
        )
    if ".experts." in f".{path}.":
        raise UnsupportedAdapter(f"module {path} is one expert of a mixture-of-experts layer, which is not supported")
    return Module(rank, in_features, out_features)


def _check_matrix(name: str, info: TensorInfo) -> None:
    if info.dtype not in DTYPES:
        raise InvalidAdapter(f"tensor {name} has dtype {info.dtype}: save it as float32, bfloat16 or float16")
    if len(info.shape) != 2 or 0 in info.shape:
        raise InvalidAdapter(
            f"tensor {name} has shape {list(info.shape)}, and LoRA of a linear layer is two non-empty matrices "
            "(under DeepSpeed ZeRO-3 or FSDP, gather the parameters before saving)"
        )


def refused_tensor(name: str) -> InvalidAdapter:
    """Why a tensor of this name has no place in plain LoRA."""
    for ending, what in _OTHER_TENSORS.items():
        if re.fullmatch(rf"base_model\.model(\.(?!lora_)[A-Za-z0-9_-]+)+{ending}", name):
            return UnsupportedAdapter(f"it holds {what}: {name[:200]!r}. Only plain LoRA is supported")
    return InvalidAdapter(
        f"tensor {name[:200]!r} is not named {_PREFIX}….lora_A.weight or ….lora_B.weight: save the adapter with peft's "
        "save_pretrained"
    )
