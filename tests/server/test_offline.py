"""Conversion and mixing in a process of its own, with a tiny model and adapters that peft made."""

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loraloom.adapters.convert.options import Options
from loraloom.adapters.errors import InvalidAdapter, InvalidBase, InvalidMixture, UnsupportedAdapter
from loraloom.adapters.manifest import WEIGHTS_FILE, read_manifest
from loraloom.adapters.mixtures.mix import mix
from loraloom.adapters.names import parse_method
from loraloom.adapters.normal import normalise
from loraloom.server.errors import OfflineBusy, OfflineFailed
from loraloom.server.offline import Offline
from tests.tiny_models import MakeAdapter


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def normal_adapters(make_adapter: MakeAdapter, tmp_path: Path) -> list[tuple[float, Path]]:
    """Two of different ranks, and their weights."""
    sources = []
    for number, rank in enumerate((2, 3)):
        folder = tmp_path / f"normal-{number}"
        folder.mkdir()
        normalise(make_adapter(f"adapter-{number}", seed=number, r=rank), folder)
        sources.append((0.5 + number, folder))
    return sources


def test_an_adapter_of_another_kind_becomes_plain_lora(
    make_adapter: MakeAdapter, tiny_base: Path, out: Path, tmp_path: Path
) -> None:
    folder = make_adapter(use_dora=True)
    made = Offline(tmp_path).convert(folder, out, str(tiny_base), Options(rank=32, max_kl=1.0))
    assert (made.kind, made.rank, made.exact) == ("DoRA", read_manifest(out).rank, made.relative_error <= 1e-5)
    assert made.kl is not None
    assert made.kl < 1e-4


def test_what_is_refused_is_refused_with_the_same_reason(
    make_adapter: MakeAdapter, tiny_base: Path, out: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedAdapter, match="plain LoRA"):
        Offline(tmp_path).convert(make_adapter(), out, str(tiny_base), Options())


@pytest.mark.usefixtures("offline_here")
def test_every_refusal_is_told_as_what_it_is(
    make_adapter: MakeAdapter, tiny_base: Path, out: Path, tmp_path: Path
) -> None:
    folder = make_adapter(use_dora=True, target_modules=["q_proj", "v_proj", "o_proj", "down_proj"])
    with pytest.raises(UnsupportedAdapter, match="more than .*: give a larger rank"):
        Offline(tmp_path).convert(folder, out, str(tiny_base), Options(rank=1, max_kl=0.0))
    with pytest.raises(InvalidBase):
        Offline(tmp_path).convert(folder, out, str(tmp_path), Options())
    with pytest.raises(InvalidAdapter):
        Offline(tmp_path).mix(parse_method("exact"), [(1.0, tmp_path / "absent")], out, None)


def test_a_process_that_dies(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    """Nobody can write to what is no folder."""
    folder, file = tmp_path / "normal", tmp_path / "file"
    folder.mkdir()
    normalise(make_adapter(), folder)
    file.write_text("in the way")
    with pytest.raises(OfflineFailed, match="do it on another machine, with `loraloom adapters add`"):
        Offline(tmp_path).mix(parse_method("exact"), [(1.0, folder)], file, None)


@pytest.mark.usefixtures("offline_here")
def test_an_adapter_of_another_base(make_adapter: MakeAdapter, tiny_base: Path, out: Path, tmp_path: Path) -> None:
    folder = make_adapter(use_dora=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["unknown_proj"]}))
    with pytest.raises(InvalidAdapter, match="Does the adapter belong to it"):
        Offline(tmp_path).convert(folder, out, str(tiny_base), Options())


def test_mixing_gives_what_it_gives_here(make_adapter: MakeAdapter, out: Path, tmp_path: Path) -> None:
    sources = normal_adapters(make_adapter, tmp_path)
    here = tmp_path / "here"
    here.mkdir()
    method = parse_method("svd(rank=4)")
    assert Offline(tmp_path).mix(method, sources, out, None) == mix(method, sources, here, compact=True)
    assert (out / "adapter_model.safetensors").read_bytes() == (here / "adapter_model.safetensors").read_bytes()


@pytest.mark.usefixtures("offline_here")
def test_ranks_that_do_not_fit(make_adapter: MakeAdapter, out: Path, tmp_path: Path) -> None:
    sources = normal_adapters(make_adapter, tmp_path)
    with pytest.raises(InvalidMixture, match="ranks"):
        Offline(tmp_path).mix(parse_method("lorahub"), sources, out, None)


@pytest.mark.usefixtures("offline_here")
def test_one_at_a_time(make_adapter: MakeAdapter, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is; and when that is done the next may come."""
    begun, end, run = threading.Event(), threading.Event(), Offline._run

    def held(self: Offline, command: Sequence[str]) -> str:
        begun.set()
        assert end.wait(60)
        return run(self, command)

    monkeypatch.setattr(Offline, "_run", held)
    offline, folder = Offline(tmp_path), make_adapter(use_dora=True)
    method, sources = parse_method("svd(rank=4)"), normal_adapters(make_adapter, tmp_path)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(offline.mix, method, sources, out, None)
        try:
            assert begun.wait(60)
            for _ in range(2):
                with pytest.raises(OfflineBusy, match="another adapter is being converted or mixed"):
                    offline.mix(method, sources, out, None)
            with pytest.raises(OfflineBusy, match="another adapter is being converted or mixed"):
                offline.convert(folder, out, str(folder), Options())
        finally:
            end.set()
        assert first.result(60).rank == 4
    with pytest.raises(InvalidBase):
        offline.convert(folder, out, str(tmp_path), Options())


def test_more_memory_than_there_is(make_adapter: MakeAdapter, out: Path, tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    huge.mkdir()
    with (huge / "model.safetensors").open("wb") as file:
        file.truncate(2**43)  # takes no space
    config = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8}
    (huge / "config.json").write_text(json.dumps(config))
    with pytest.raises(OfflineBusy, match="GiB of main memory"):
        Offline(tmp_path).convert(make_adapter(use_dora=True), out, str(huge), Options())


def test_a_mixture_of_more_memory_than_there_is(make_adapter: MakeAdapter, out: Path, tmp_path: Path) -> None:
    small, huge = make_adapter("small"), tmp_path / "huge"
    huge.mkdir()
    with (huge / WEIGHTS_FILE).open("wb") as file:
        file.truncate(2**43)  # takes no space
    sources = [(1.0, small), (1.0, huge)]
    with pytest.raises(
        OfflineBusy, match=r"the mixture needs about 24576\.0 GiB of main memory.*`loraloom adapters mix`"
    ):
        Offline(tmp_path).mix(parse_method("exact"), sources, out, None)
