"""Whether there is what the tests and benchmarks here need. Imports neither torch nor vLLM."""

from loraloom.server.machine import Machine, inspect


def missing(machine: Machine | None = None) -> str | None:
    """Why nothing here can run on this machine; None where it can."""
    here = machine or inspect()
    if here.gpu is None:
        return "there is no NVIDIA GPU"
    if here.distribution != "vllm":
        return f"{here.distribution or 'no vLLM'} is installed, not vLLM for CUDA: pip install 'vllm==0.26.0'"
    return None
