"""vLLM's question "where is this adapter?", answered from the leases."""

from collections.abc import Callable
from pathlib import Path

from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver

Directory = Callable[[str], Path | None]


class LeaseResolver(LoRAResolver):
    """Knows the directories of the adapters that have a place in the engine's memory, and nothing else."""

    def __init__(self, directory: Directory) -> None:
        """
        Args:
            directory: from a canonical name to its verified directory, None for a name without a place.
        """
        self._directory = directory

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """The request to load an adapter; vLLM replaces the identifier by one of its own."""
        folder = self._directory(lora_name)
        return None if folder is None else LoRARequest(lora_name, 1, str(folder))
