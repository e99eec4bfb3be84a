"""The weights of a normal form: read into factors, and written from them, as fast as the disk allows."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from loraloom.adapters.arithmetic.factors import Factors
from loraloom.adapters.errors import InvalidAdapter
from loraloom.adapters.manifest import CONFIG_FILE, DTYPES, WEIGHTS_FILE, open_regular, read_manifest, tensor_name
from loraloom.adapters.normal import dtype_name, write_config
from loraloom.adapters.safetensors_header import TensorInfo, write_header

if TYPE_CHECKING:
    from torch import Tensor


def read_factors(folder: Path) -> tuple[Mapping[str, Factors], str | None]:
    """Every module's factors in a normal form by the module's path, and the task type.

    Raises:
        InvalidAdapter: it is damaged, or no normal form.
    """
    manifest = read_manifest(folder)
    if any(scaling != 1 for scaling in manifest.scaling.values()):
        raise InvalidAdapter(f"{folder} is not in normal form: its scalings are not folded into B")
    with open_regular(folder / WEIGHTS_FILE) as file:
        buffer = bytearray(file.seek(0, 2))
        file.seek(0)
        if file.readinto(buffer) != len(buffer) or len(buffer) != max(info.end for info in manifest.tensors.values()):
            raise InvalidAdapter(f"{folder / WEIGHTS_FILE} changed while it was read")
    factors = {
        path: Factors(*(_view(buffer, manifest.tensors[tensor_name(path, factor)]) for factor in "AB"))
        for path in manifest.modules
    }
    return MappingProxyType(factors), manifest.task_type


def write_factors(out: Path, modules: Mapping[str, Factors], task_type: str | None) -> None:
    """Write a normal form of these modules to the folder `out`, whose bytes depend on nothing else.

    It is not made durable: see that nobody looks at a folder that is half written.
    """
    tensors = {}
    for path, factors in modules.items():
        tensors[tensor_name(path, "A")] = factors.a
        tensors[tensor_name(path, "B")] = factors.b
    header, places = write_header((name, dtype_name(each), tuple(each.shape)) for name, each in tensors.items())
    with (out / WEIGHTS_FILE).open("wb") as file:
        file.write(header)
        for name in sorted(places, key=lambda name: places[name].start):
            file.write(_bytes(tensors[name]))
    write_config(modules, max(factors.rank for factors in modules.values()), task_type, out / CONFIG_FILE)


def _view(buffer: bytearray, info: TensorInfo) -> "Tensor":
    import torch

    dtype = getattr(torch, DTYPES[info.dtype])
    count = info.shape[0] * info.shape[1]
    return torch.frombuffer(buffer, dtype=dtype, count=count, offset=info.start).reshape(info.shape)


def _bytes(tensor: "Tensor") -> memoryview:
    import torch

    return tensor.reshape(-1).contiguous().view(torch.uint8).numpy().data
