"""The header of a safetensors file, read and written without any tensor library.

Reading checks everything that the format promises (github.com/huggingface/safetensors, "Format"), so that whoever reads
a tensor at the returned offsets stays inside the file and inside that tensor.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

MAX_HEADER = 2**25
"""Bytes in the longest header that is read. The format allows three times as many; 200,000 tensors take no more, and a
header takes twenty times its size in memory."""

_LENGTH_BYTES = 8
_ALIGNMENT = 8
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
    "U16": 16, "U8": 8, "BOOL": 8, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


class BadHeader(ValueError):
    """The file is not a whole safetensors file; the message says where."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies.

    Attributes:
        dtype: the format's name of it, such as "BF16".
        shape: its dimensions.
        start: the first byte, counted from the file's beginning.
        end: the byte after the last.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(file: BinaryIO, size: int) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file by name, in the order of their bytes.

    Args:
        file: open at its beginning.
        size: bytes in the whole file.

    Raises:
        BadHeader: truncated, not JSON, or offsets and shapes that do not describe exactly the bytes that follow.
    """
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if size < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
        raise BadHeader(f"the file ends within its header ({size} bytes, header of {length})")
    if length > MAX_HEADER:
        raise BadHeader(f"its header has {length} bytes, more than the {MAX_HEADER} that are read")
    begin = _LENGTH_BYTES + length
    infos = {name: _info(name, entry, begin) for name, entry in _parse(file.read(length)).items()}
    ordered = dict(sorted(infos.items(), key=lambda item: (item[1].start, item[1].end)))
    _check_contiguous(ordered, begin, size)
    return ordered


def write_header(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> tuple[bytes, dict[str, TensorInfo]]:
    """The header for tensors of these names, types and shapes, and where the bytes of each belong.

    The layout depends on nothing else: wide types first, so that all are aligned, then by name.
    """
    ordered = sorted(tensors, key=lambda tensor: (-_BITS[tensor[1]], tensor[0]))
    relative, offset = {}, 0
    for name, dtype, shape in ordered:
        end = offset + math.prod(shape) * _BITS[dtype] // 8
        relative[name] = TensorInfo(dtype, shape, offset, end)
        offset = end
    entries = {
        name: {"dtype": info.dtype, "shape": info.shape, "data_offsets": (info.start, info.end)}
        for name, info in relative.items()
    }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    begin = _LENGTH_BYTES + len(text)
    moved = {
        name: TensorInfo(info.dtype, info.shape, begin + info.start, begin + info.end)
        for name, info in relative.items()
    }
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text, moved


def _parse(text: bytes) -> Mapping[str, object]:
    try:
        entries = json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadHeader(f"its header is not JSON ({error})") from error
    if not isinstance(entries, dict) or not text.startswith(b"{"):
        raise BadHeader("its header is not a JSON object")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(map(_is_text, metadata.values())):
        raise BadHeader("its __metadata__ does not map texts to texts")
    return entries


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a key appears twice")
    if not all(map(_is_text, entries)):
        raise ValueError("a key is no text")
    return entries


def _is_text(value: object) -> bool:
    """JSON can write halves of characters, which are no text."""
    return isinstance(value, str) and (value.isascii() or value.encode(errors="ignore").decode() == value)


def _info(name: str, entry: object, begin: int) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BadHeader(f"tensor {name[:200]!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise BadHeader(f"tensor {name[:200]!r} has the unknown dtype {str(dtype)[:50]!r}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise BadHeader(f"tensor {name[:200]!r} has a shape or offsets that are not sizes")
    start, end = offsets
    if (end - start) * 8 != math.prod(shape) * _BITS[dtype]:
        raise BadHeader(f"tensor {name[:200]!r} has {end - start} bytes, which is not {dtype} of shape {shape}")
    return TensorInfo(dtype, tuple(shape), begin + start, begin + end)


def _are_sizes(value: object) -> bool:
    return (
        isinstance(value, list) and len(value) <= 16 and all(type(item) is int and 0 <= item < 2**63 for item in value)
    )


def _check_contiguous(ordered: Mapping[str, TensorInfo], begin: int, size: int) -> None:
    expected = begin
    for name, info in ordered.items():
        if info.start != expected:
            kind = "overlaps the one before it" if info.start < expected else "leaves a gap before it"
            raise BadHeader(f"tensor {name[:200]!r} {kind}")
        expected = info.end
    if expected != size:
        kind = "is truncated" if expected > size else "goes on after its last tensor"
        raise BadHeader(f"the file {kind}: {size} bytes instead of {expected}")
