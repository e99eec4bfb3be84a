import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import vllm
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.lora.punica_wrapper.punica_selector import get_punica_wrapper
from vllm.platforms import current_platform
from vllm.platforms.cpu import CpuPlatform

from loraloom.server.kernels import install as module
from loraloom.server.kernels.install import PUNICA_WRAPPER, TESTED_VLLM, install, kernel
from loraloom.server.kernels.native import Kernel
from loraloom.server.kernels.punica import GroupedPunicaWrapperCPU

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="kernels of vLLM's CPU build")


class Records(logging.Handler):
    """What reaches vLLM's own handler: its loggers do not propagate to pytest's."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def log() -> Iterator[list[str]]:
    vllm.logger._print_info_once.cache_clear()
    vllm.logger._print_warning_once.cache_clear()
    records = Records()
    logger = logging.getLogger("vllm")
    level = logger.level
    logger.setLevel(logging.INFO)  # as vLLM does at the start of its processes
    logger.addHandler(records)
    yield records.messages
    logger.removeHandler(records)
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def _platform_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_library", None)
    monkeypatch.setattr(CpuPlatform, "get_punica_wrapper", CpuPlatform.__dict__["get_punica_wrapper"])


def wrapper_of_a_new_model() -> PunicaWrapperCPU:
    return get_punica_wrapper(64, max_batches=8, device="cpu", lora_config=None)


def test_models_get_the_grouped_kernels(log: list[str]) -> None:
    assert install(version=f"{TESTED_VLLM}.0")
    assert type(wrapper_of_a_new_model()) is GroupedPunicaWrapperCPU
    assert [line for line in log if line.startswith("CPU LoRA")] == ["CPU LoRA: torch, one product for each adapter."]


def test_models_get_the_compiled_kernel(log: list[str], library: Path) -> None:
    assert install(library=library)
    assert log == ["CPU LoRA: the compiled kernel."]
    assert isinstance(kernel(), Kernel)


def test_without_a_compiled_kernel_there_is_none() -> None:
    assert install()
    assert kernel() is None


def test_the_installed_vllm_is_a_tested_one() -> None:
    assert install()


def test_it_may_be_called_many_times(log: list[str]) -> None:
    assert all(install(version=f"{TESTED_VLLM}.0") for _ in range(3))
    assert current_platform.get_punica_wrapper() == PUNICA_WRAPPER
    assert len(log) == 1


@pytest.mark.parametrize("version", ["0.31.9", "0.33.0", "0.320.0", "1.0.32", "dev"])
def test_an_untested_version_keeps_its_own_kernels_and_says_so(version: str, log: list[str]) -> None:
    assert not install(version=version)
    assert type(wrapper_of_a_new_model()) is PunicaWrapperCPU
    assert f"not {version}." in log[0]


@pytest.mark.parametrize("version", ["0.32", "0.32.0", "0.32.1+cpu"])
def test_a_tested_version_is_recognised(version: str) -> None:
    assert install(version=version)


def test_switched_off_it_leaves_vllm_alone(log: list[str]) -> None:
    assert not install(enabled=False)
    assert type(wrapper_of_a_new_model()) is PunicaWrapperCPU
    assert "switched off" in log[0]


def test_other_platforms_are_left_alone(monkeypatch: pytest.MonkeyPatch, log: list[str]) -> None:
    monkeypatch.setattr(module, "current_platform", vllm.platforms.interface.UnspecifiedPlatform())
    assert not install()
    assert log == []
    assert current_platform.get_punica_wrapper() != PUNICA_WRAPPER
