"""The stages of a cold load inside a worker, one by one.

Runs in a process of its own, `python -m tests.bench.swap_stages MODEL DTYPE FOLDER…`, with an engine that does nothing
else; prints one JSON object for each folder.
"""

import json
import os
import sys
import time
from concurrent.futures import wait
from itertools import pairwise
from typing import Any

WORKER = "loraloom.server.worker.AdapterReading"
PATIENCE = 60.0
"""Seconds that one adapter may take to read."""


def main(model: str, dtype: str, *folders: str) -> None:
    """Start an engine, load each adapter once."""
    os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # the function goes to the worker as it is
    from vllm import LLM

    engine = LLM(
        model,
        dtype=dtype,
        enable_lora=True,
        max_loras=4,
        max_cpu_loras=8,
        max_lora_rank=16,
        max_model_len=256,
        worker_extension_cls=WORKER,
        disable_log_stats=True,
    )
    for identifier, folder in enumerate(folders, start=100):
        (stages,) = engine.collective_rpc(loaded, args=(identifier, folder))
        print(json.dumps(stages), flush=True)


def loaded(worker: Any, identifier: int, folder: str) -> dict[str, float]:
    """Seconds of each stage, in the worker's own reading thread and then in its engine's."""
    from vllm.lora.request import LoRARequest

    reader, request = worker.loraloom_reader, LoRARequest(str(identifier), identifier, folder)
    clock = [time.perf_counter()]
    assert reader.read(request) == "reading", "nothing of it is in memory"
    wait([reader._reads[identifier]], timeout=PATIENCE)
    clock.append(time.perf_counter())
    assert reader.read(request) == "held", "the adapter is one that this model takes"
    clock.append(time.perf_counter())
    reader._adapters.activate_adapter(identifier)
    clock.append(time.perf_counter())
    reader.drop(identifier)
    names = ("read", "cpu tier", "slot")
    return {name: after - before for name, (before, after) in zip(names, pairwise(clock), strict=True)}


if __name__ == "__main__":
    main(*sys.argv[1:])
