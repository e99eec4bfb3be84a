import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloom.adapters.safetensors_header import MAX_HEADER, BadHeader, TensorInfo, read_header, write_header


def _file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _read(content: bytes) -> dict[str, TensorInfo]:
    return read_header(io.BytesIO(content), len(content))


def _entry(start: int, end: int, dtype: str = "F32", shape: tuple[int, ...] = (1,)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": (start, end)}


WHOLE = _file(
    {"__metadata__": {"format": "pt"}, "a": _entry(0, 4), "b": _entry(4, 12, "BF16", (2, 2))}, bytes(range(12))
)


def test_tensors_in_the_order_of_their_bytes() -> None:
    begin = len(WHOLE) - 12
    assert list(_read(WHOLE).items()) == [
        ("a", TensorInfo("F32", (1,), begin, begin + 4)),
        ("b", TensorInfo("BF16", (2, 2), begin + 4, begin + 12)),
    ]


def test_agrees_with_the_library_that_wrote_the_file(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {
        "x": torch.arange(6.0).reshape(2, 3),
        "y": torch.ones(4, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3),
    }
    save_file(tensors, tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    infos = _read(content)
    assert {name: info.shape for name, info in infos.items()} == {name: tuple(t.shape) for name, t in tensors.items()}
    for name, info in infos.items():
        assert content[info.start : info.end] == tensors[name].view(torch.uint8).numpy().tobytes()


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    tensors = {"b": torch.ones(3, dtype=torch.bfloat16), "a": torch.ones(5, dtype=torch.float16), "c": torch.ones(2, 2)}
    dtypes = {"a": "F16", "b": "BF16", "c": "F32"}
    header, places = write_header((name, dtypes[name], tuple(tensor.shape)) for name, tensor in tensors.items())
    content = bytearray(header) + bytearray(max(place.end for place in places.values()) - len(header))
    for name, place in places.items():
        content[place.start : place.end] = tensors[name].view(torch.uint8).numpy().tobytes()
    (tmp_path / "file").write_bytes(content)
    loaded = load_file(tmp_path / "file")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert _read(bytes(content)) == places


def test_what_is_written_does_not_depend_on_the_order_given() -> None:
    tensors = [("b", "F16", (2,)), ("a", "F32", (3,)), ("c", "F32", (1,))]
    assert write_header(tensors) == write_header(reversed(tensors))
    header, places = write_header(tensors)
    assert list(places) == ["a", "c", "b"]
    assert len(header) % 8 == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "within its header"),
        (b"\x00" * 7, "within its header"),
        ((100).to_bytes(8, "little") + b"{}", "within its header"),
        ((2**64 - 1).to_bytes(8, "little") + b"{}", "within its header"),
        (_file(b"\xff\xfe{}"), "not JSON"),
        (_file(b"{"), "not JSON"),
        (_file(b"[" * 100_000), "not JSON"),
        (_file(b'{"a": 1' + b"0" * 5000 + b"}"), "not JSON"),
        (_file(b'{"a": 1, "a": 1}'), "twice"),
        (_file(b'{"\\ud800": 1}'), "no text"),
        (_file(b'{"__metadata__": {"a": "\\udfff"}}'), "texts to texts"),
        (_file([]), "not a JSON object"),
        (_file(b" {}"), "not a JSON object"),
        (_file("{}".encode("utf-16")), "not JSON"),
        (_file({"__metadata__": {"format": 1}}), "__metadata__"),
        (_file({"a": 1}), "described by"),
        (_file({"a": {"dtype": "F32", "shape": [1]}}), "described by"),
        (_file({"a": _entry(0, 4, "X32")}, b"0000"), "unknown dtype"),
        (_file({"a": _entry(0, 4) | {"dtype": ["F32"]}}, b"0000"), "unknown dtype"),
        (_file({"a": _entry(0, 4) | {"shape": 1}}, b"0000"), "not sizes"),
        (_file({"a": _entry(0, 4) | {"shape": [1.0]}}, b"0000"), "not sizes"),
        (_file({"a": _entry(0, 4) | {"shape": [True]}}, b"0000"), "not sizes"),
        (_file({"a": _entry(0, 4) | {"shape": [-1, -1]}}, b"0000"), "not sizes"),
        (_file({"a": _entry(0, 4) | {"data_offsets": [0]}}, b"0000"), "not sizes"),
        (_file({"a": _entry(-4, 0)}, b"0000"), "not sizes"),
        (_file({"a": _entry(4, 0)}, b"0000"), "not F32 of shape"),
        (_file({"a": _entry(0, 4, shape=(2,))}, b"0000"), "not F32 of shape"),
        (_file({"a": _entry(0, 4, shape=(2**62, 2**62))}, b"0000"), "not F32 of shape"),
        (_file({"a": _entry(4, 8)}, b"0" * 8), "gap"),
        (_file({"a": _entry(0, 4), "b": _entry(2, 6)}, b"0" * 6), "overlaps"),
        (_file({"a": _entry(0, 4), "b": _entry(0, 4)}, b"0" * 4), "overlaps"),
        (_file({"a": _entry(0, 4)}, b"000"), "truncated"),
        (_file({"a": _entry(0, 4)}, b"00000"), "goes on"),
        (_file({}, b"0"), "goes on"),
    ],
)
def test_refused(content: bytes, reason: str) -> None:
    with pytest.raises(BadHeader, match=reason):
        _read(content)


def test_a_header_over_the_limit_is_not_read() -> None:
    file = io.BytesIO((MAX_HEADER + 1).to_bytes(8, "little"))
    with pytest.raises(BadHeader, match="more than"):
        read_header(file, 2 * MAX_HEADER)
    assert file.tell() == 8


broken = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=100).map(_file),
    st.integers(0, len(WHOLE) - 1).map(lambda length: WHOLE[:length]),
    st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)).map(
        lambda change: WHOLE[: change[0]] + bytes([change[1]]) + WHOLE[change[0] + 1 :]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("F32"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "dtype", "shape", "data_offsets"]), inner)
        ),
        max_leaves=8,
    ).map(_file),
)


@settings(max_examples=2000)
@given(broken)
def test_any_bytes_are_refused_or_read_as_the_library_reads_them(content: bytes) -> None:
    from safetensors import deserialize

    try:
        infos = _read(content)
    except BadHeader:
        return
    theirs = {name: bytes(tensor["data"]) for name, tensor in deserialize(content)}
    assert theirs == {name: content[info.start : info.end] for name, info in infos.items()}
