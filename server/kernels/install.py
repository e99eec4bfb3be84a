"""Puts our LoRA kernels in the place of vLLM's own, where they were tested."""

from pathlib import Path

import vllm
from vllm.logger import init_logger
from vllm.platforms import current_platform

from loraloom.server.kernels.native import Kernel

# vLLM shows on the console what the loggers below its own say.
logger = init_logger("vllm.loraloom.kernels")

TESTED_VLLM = "0.32"
PUNICA_WRAPPER = "loraloom.server.kernels.punica.GroupedPunicaWrapperCPU"

_FAULT = (
    "Those are slow, and in vLLM 0.32 a request without an adapter gets another request's update "
    "when both are in one step."
)


_library: Path | None = None


def install(enabled: bool = True, version: str = vllm.__version__, library: Path | None = None) -> bool:
    """Makes vLLM's CPU platform name our punica wrapper.

    For vLLM's plugin hook, which runs in every process of a server: it may be called many times, and changes
    the models that are loaded afterwards.

    Args:
        enabled: False leaves vLLM's own kernels in place.
        version: the running vLLM's version.
        library: the compiled kernel; without one, torch computes.

    Returns:
        Whether models will use our kernels.
    """
    if not current_platform.is_cpu():
        return False
    if not enabled:
        logger.warning_once("CPU LoRA: vLLM's own kernels, because LoraLoom's are switched off. %s", _FAULT)
        return False
    if not f"{version}.".startswith(f"{TESTED_VLLM}."):
        logger.warning_once(
            "CPU LoRA: vLLM's own kernels, because LoraLoom's are tested with vLLM %s, not %s. %s",
            TESTED_VLLM,
            version,
            _FAULT,
        )
        return False
    global _library  # vLLM makes the wrapper by its name alone, and has nowhere to hand this through
    _library = library
    _patch()
    logger.info_once("CPU LoRA: %s.", "the compiled kernel" if library else "torch, one product for each adapter")
    return True


def kernel() -> Kernel | None:
    """The compiled kernel, loaded; None where torch computes."""
    return Kernel(_library) if _library else None


def _patch() -> None:
    from vllm.platforms.cpu import CpuPlatform

    # The one place where vLLM is patched: it has no registry for this. Subclasses of the platform inherit it.
    method = classmethod(lambda cls: PUNICA_WRAPPER)
    CpuPlatform.get_punica_wrapper = method  # type: ignore[assignment, method-assign]
