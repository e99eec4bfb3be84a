"""The one form in which adapters are stored: plain LoRA with every scaling folded into B.

Two files, whose bytes depend on nothing but the adapter. `adapter_config.json` says r = lora_alpha = the largest rank,
so that whoever reads it scales by 1; `adapter_model.safetensors` holds each module's A and B, of that module's own
rank (vLLM copies them into its slots by their shapes).
"""

import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from loraloom.adapters.errors import InvalidAdapter
from loraloom.adapters.manifest import (
    CONFIG_FILE,
    DTYPES,
    WEIGHTS_FILE,
    Manifest,
    open_regular,
    read_manifest,
    tensor_name,
)
from loraloom.adapters.peft_config import NORMAL_FORM_KEY
from loraloom.adapters.safetensors_header import TensorInfo, write_header

if TYPE_CHECKING:
    from torch import Tensor, dtype

_BLOCK = 2**22
"""Elements that are worked on in float64 at a time."""

FILES = (CONFIG_FILE, WEIGHTS_FILE)
"""The files of the normal form, in the order in which the digest covers them."""


@dataclass(frozen=True, slots=True)
class Normal:
    """What `normalise` wrote.

    Attributes:
        digest: 64 hex digits, see `digest_of`.
        manifest: of the normal form.
        norms: the Frobenius norm of each module's B A, by its path.
    """

    digest: str
    manifest: Manifest
    norms: Mapping[str, float]


def normalise(folder: Path, out: Path, *, allow_noop: bool = False) -> Normal:
    """Write the normal form of the adapter in `folder` to the folder `out`.

    The scaling s of a module moves into its B, which keeps its type where s B has an exact form in it (always, within
    the type's range, when s is a power of two) and becomes float32 otherwise: bfloat16 would round most of its digits.

    Args:
        folder: the adapter as peft saved it, or a normal form, which comes out unchanged.
        out: an existing folder of the caller's own; its files are complete only when this returns.
        allow_noop: accept an adapter that changes nothing.

    Raises:
        InvalidAdapter: as `read_manifest` does; or a tensor holds NaN or infinity; or the update is zero everywhere.
        UnsupportedAdapter: it is not plain LoRA.
    """
    given = read_manifest(folder)
    norms: dict[str, float] = {}
    dtypes: dict[str, str] = {}
    with open_regular(folder / WEIGHTS_FILE) as file:
        for path in given.modules:
            a, b = _read_update(given, path, file)
            norms[path] = update_norm(a, b)
            dtypes |= {tensor_name(path, "A"): dtype_name(a), tensor_name(path, "B"): dtype_name(b)}
        if not allow_noop and not any(norms.values()):
            raise InvalidAdapter(
                "the adapter changes nothing: B A is zero in every module. Was it saved before training? "
                "(--allow-noop adds it all the same)"
            )
        _write_weights(given, dtypes, file, out / WEIGHTS_FILE)
    write_config(given.modules, given.rank, given.task_type, out / CONFIG_FILE)
    return Normal(digest_of(out), read_manifest(out), MappingProxyType(norms))


def digest_of(folder: Path) -> str:
    """The digest of the normal form in `folder`, as 64 hex digits.

    It is the SHA-256 of the text that `sha256sum adapter_config.json adapter_model.safetensors` prints: for each file
    in this order, its own SHA-256 in hex digits, two spaces, its name and a newline.

    Raises:
        InvalidAdapter: a file is missing, or is not a regular file.
    """
    lines = "".join(f"{_file_digest(folder / name)}  {name}\n" for name in FILES)
    return hashlib.sha256(lines.encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fold(b: "Tensor", scaling: float) -> "Tensor":
    """`scaling` times `b`, in b's type where that is exact, and in float32 otherwise. Shape [out_features, rank]."""
    import torch

    folded, exact = _scaled(b, scaling, b.dtype)
    return folded if exact else _scaled(b, scaling, torch.float32)[0]


def _scaled(b: "Tensor", scaling: float, into: "dtype") -> tuple["Tensor", bool]:
    """`scaling` times `b`, computed in float64 and rounded to `into`, and whether that lost nothing."""
    import torch

    scaled, exact = torch.empty(b.shape, dtype=into, device=b.device), True
    parts = (torch.split(each, _BLOCK) for each in (scaled.view(-1), b.reshape(-1)))
    for target, source in zip(*parts, strict=True):
        wide = source.double() * scaling
        target.copy_(wide)
        exact = exact and torch.equal(target.double(), wide)
    return scaled, exact


def update_norm(a: "Tensor", b: "Tensor") -> float:
    """The Frobenius norm of b a, with no matrix in memory that is larger than `a` and `b`, but for blocks.

    |b a|^2 = trace(a^T b^T b a) is the sum over the elements of (b^T b) * (a a^T), in float64: right to about 1e-8 of
    |b| |a| where b a cancels almost to nothing, and to the last digits elsewhere. These two are of the rank's size;
    where b a has fewer rows or columns than that, it is computed itself, a block at a time.

    Args:
        a: [rank, in_features].
        b: [out_features, rank].
    """
    rank = a.shape[0]
    square = _square_by_rank(a, b) if rank <= min(a.shape[1], b.shape[0]) else _square_of_product(a, b)
    return math.sqrt(max(square, 0.0))


def _square_by_rank(a: "Tensor", b: "Tensor") -> float:
    return float((_gram(b) * _gram(a.T)).sum())


def _gram(matrix: "Tensor") -> "Tensor":
    """x^T x of x [n, rank], in float64 and a block of rows after the other."""
    import torch

    rank = matrix.shape[1]
    gram = torch.zeros(rank, rank, dtype=torch.float64, device=matrix.device)
    for rows in torch.split(matrix, max(1, _BLOCK // rank)):
        wide = rows.double()
        gram += wide.T @ wide
    return gram


def _square_of_product(a: "Tensor", b: "Tensor") -> float:
    """|b a|^2, a tile of b a after the other."""
    import torch

    side = max(1, _BLOCK // a.shape[0])
    pairs = product(torch.split(a, side, dim=1), torch.split(b, side))
    tiles = (rows.double() @ columns.double() for columns, rows in pairs)
    return sum(float(tile.square().sum()) for tile in tiles)


def _read_update(manifest: Manifest, path: str, file: io.BufferedReader) -> tuple["Tensor", "Tensor"]:
    """A as given, and B with the module's scaling folded in."""
    a = _read_tensor(file, manifest.tensors[tensor_name(path, "A")])
    b = fold(_read_tensor(file, manifest.tensors[tensor_name(path, "B")]), manifest.scaling[path])
    for factor, tensor in (("A", a), ("B", b)):
        if not tensor.isfinite().all():
            raise InvalidAdapter(
                f"tensor {tensor_name(path, factor)} holds NaN or infinity: take a checkpoint from before it diverged"
            )
    return a, b


def _read_tensor(file: io.BufferedReader, info: TensorInfo) -> "Tensor":
    import torch

    buffer = bytearray(info.end - info.start)
    file.seek(info.start)
    if file.readinto(buffer) != len(buffer):
        raise InvalidAdapter(f"{WEIGHTS_FILE} changed while it was read: add the adapter again")
    return torch.frombuffer(buffer, dtype=getattr(torch, DTYPES[info.dtype])).reshape(info.shape)


def dtype_name(tensor: "Tensor") -> str:
    """What safetensors calls the type of a tensor."""
    torch_name = str(tensor.dtype).removeprefix("torch.")
    return next(name for name, known in DTYPES.items() if known == torch_name)


def _write_weights(given: Manifest, dtypes: Mapping[str, str], source: io.BufferedReader, target: Path) -> None:
    """Write A and scaled B of one module after the other to their places."""
    import torch

    header, places = write_header((name, dtype, given.tensors[name].shape) for name, dtype in dtypes.items())
    with target.open("wb") as file:
        file.write(header)
        for path in given.modules:
            for factor, tensor in zip("AB", _read_update(given, path, source), strict=True):
                place = places[tensor_name(path, factor)]
                if tensor.nbytes != place.end - place.start:
                    raise InvalidAdapter(f"{WEIGHTS_FILE} changed while it was read: add the adapter again")
                file.seek(place.start)
                file.write(tensor.view(torch.uint8).numpy().data)


def write_config(modules: Iterable[str], rank: int, task_type: str | None, target: Path) -> None:
    """Write the configuration of a normal form with these modules, of which the largest rank is `rank`."""
    config = {
        "base_model_name_or_path": None,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": rank,
        NORMAL_FORM_KEY: 1,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(modules),
        "task_type": task_type,
        "use_rslora": False,
    }
    target.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
