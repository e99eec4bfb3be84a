"""Whatever two files are given as an adapter, they are one that is stored and read back, or refused with the reason."""

import io
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors
from hypothesis import example, given
from hypothesis import strategies as st

from loraloom.adapters.convert.kinds import kind_of
from loraloom.adapters.errors import AdapterError, InvalidAdapter
from loraloom.adapters.manifest import CONFIG_FILE, WEIGHTS_FILE, Manifest, read_manifest
from loraloom.adapters.patterns import MAX_PATTERN, Patterns
from loraloom.adapters.safetensors_header import BadHeader, read_header
from loraloom.adapters.store import Store
from loraloom.adapters.weights import read_factors, write_factors
from tests.fuzz.adapter_files import MODULES, Weights, config_texts, patterns, tensor_name, weights
from tests.fuzz.cases import fuzzed, little_memory, watched
from tests.fuzz.jsons import SPELLINGS

TOLD = 2000
"""Characters in the longest message: it goes to whoever uploaded the adapter, and into the log."""
CONFIG = b'{"peft_type":"LORA","r":2,"lora_alpha":4}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of one case after the other are."""
    return tmp_path_factory.mktemp("adapter")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store that holds whatever was an adapter, and is whole at the end."""
    made = Store.open(tmp_path_factory.mktemp("store"))
    yield made
    assert not [finding for finding in made.verify() if finding.kind != "garbage"]


def put(folder: Path, given: Weights, config: bytes) -> Path:
    """Write an adapter's files, the weights with a hole for what the header says is there."""
    (folder / CONFIG_FILE).write_bytes(config)
    (folder / WEIGHTS_FILE).write_bytes(given.head)
    os.truncate(folder / WEIGHTS_FILE, given.size)
    return folder


def told(error: Exception) -> None:
    """Everything that an error promises."""
    assert 0 < len(str(error)) <= TOLD
    assert str(error).encode()


@fuzzed(0.4)
@given(weights())
@watched
def test_a_header_describes_the_whole_file_or_is_refused(given: Weights) -> None:
    try:
        with little_memory():
            found = read_header(io.BytesIO(given.head), given.size)
    except BadHeader as error:
        return told(error)
    position = 8 + int.from_bytes(given.head[:8], "little")
    for info in found.values():
        assert info.start == position
        assert info.end >= info.start
        position = info.end
    assert position == given.size
    if given.size < 10**5 and {info.dtype for info in found.values()} <= {"F32", "F16", "BF16", "F64", "I8", "BOOL"}:
        read = dict(safetensors.deserialize(given.head + bytes(given.size - len(given.head))))
        assert {name: tuple(tensor["shape"]) for name, tensor in read.items()} == {n: i.shape for n, i in found.items()}


def sound(manifest: Manifest) -> None:
    """Everything that a manifest promises."""
    assert manifest.modules
    for path, module in manifest.modules.items():
        a, b = (manifest.tensors[tensor_name(path, factor)] for factor in "AB")
        assert (a.shape, b.shape) == ((module.rank, module.in_features), (module.out_features, module.rank))
        assert math.isfinite(manifest.scaling[path])


@fuzzed(0.3)
@given(st.one_of(st.just(CONFIG), config_texts), weights())
@watched
def test_two_files_are_an_adapter_or_refused(folder: Path, config: bytes, given: Weights) -> None:
    try:
        with little_memory():
            sound(read_manifest(put(folder, given, config)))
    except InvalidAdapter as error:
        told(error)


@fuzzed(0.15)
@given(patterns, st.sampled_from((*MODULES, "a" * 400, "a." * 200)))
@example("(?R)", MODULES[0])
@example("(?:(?R)|a)*", MODULES[0])
@example("(a{1000000}){1000000}", MODULES[0])
@example("(?V0)a(?V1)", MODULES[0])
@example("(" * 500 + ")" * 500, MODULES[0])
@example("((.*){5}){100000}", MODULES[0])
@watched
def test_a_pattern_matches_in_time_and_memory_or_is_refused(pattern: str, path: str) -> None:
    try:
        with little_memory():
            assert Patterns({pattern: 1}, time.monotonic() + 0.2).get(path, 0) in (0, 1)
    except InvalidAdapter as error:
        told(error)
    else:
        assert len(pattern) <= MAX_PATTERN


@fuzzed(0.15)
@given(st.one_of(st.just(CONFIG), config_texts), weights())
@watched
def test_what_is_published_is_whole(store: Store, folder: Path, config: bytes, given: Weights) -> None:
    """The store takes it and gives it back, or refuses it: nothing else is raised, and nothing half stays."""
    given = Weights(given.head, min(given.size, 10**6))
    before = store.names()
    try:
        with little_memory():
            kind_of(put(folder, given, config))
            version = store.publish(folder, "fuzz", allow_noop=True).version
    except AdapterError as error:
        told(error)
        assert store.names() == before
        return
    with store.leased(version.digest) as blob:
        factors, task_type = read_factors(blob)
        again = folder / "again"
        again.mkdir(exist_ok=True)
        write_factors(again, factors, task_type)
        assert (again / WEIGHTS_FILE).read_bytes() == (blob / WEIGHTS_FILE).read_bytes()
    store.remove("fuzz")


def test_a_claim_is_refused_before_memory_is_taken(folder: Path) -> None:
    """A file with a hole of a terabyte, and a header that says that all of it are tensors."""
    for size in (10**12, 10**15):
        head = (10**11).to_bytes(8, "little") + SPELLINGS[0]
        with pytest.raises(BadHeader), little_memory():
            read_header(io.BytesIO(head), size)
