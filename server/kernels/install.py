"""Puts the grouped LoRA kernels in the place of vLLM's own, where they were tested."""

import vllm
from vllm.logger import init_logger
from vllm.platforms import current_platform

# vLLM shows on the console what the loggers below its own say.
logger = init_logger("vllm.loraloom.kernels")

TESTED_VLLM = "0.32"
PUNICA_WRAPPER = "loraloom.server.kernels.punica.GroupedPunicaWrapperCPU"

_FAULT = (
    "Those are slow, and in vLLM 0.32 a request without an adapter gets another request's update "
    "when both are in one step."
)


def install(enabled: bool = True, version: str = vllm.__version__) -> bool:
    """Makes vLLM's CPU platform name our punica wrapper.

    For vLLM's plugin hook, which runs in every process of a server: it may be called many times, and changes
    the models that are loaded afterwards.

    Args:
        enabled: False leaves vLLM's own kernels in place.
        version: the running vLLM's version.

    Returns:
        Whether models will use the grouped kernels.
    """
    if not current_platform.is_cpu():
        return False
    if not enabled:
        logger.warning_once("CPU LoRA: vLLM's own kernels, because the grouped ones are switched off. %s", _FAULT)
        return False
    if not f"{version}.".startswith(f"{TESTED_VLLM}."):
        logger.warning_once(
            "CPU LoRA: vLLM's own kernels, because the grouped ones are tested with vLLM %s, not %s. %s",
            TESTED_VLLM,
            version,
            _FAULT,
        )
        return False
    _patch()
    logger.info_once("CPU LoRA: grouped kernels, one matrix product for each adapter of a step.")
    return True


def _patch() -> None:
    from vllm.platforms.cpu import CpuPlatform

    # The one place where vLLM is patched: it has no registry for this. Subclasses of the platform inherit it.
    method = classmethod(lambda cls: PUNICA_WRAPPER)
    CpuPlatform.get_punica_wrapper = method  # type: ignore[assignment, method-assign]
