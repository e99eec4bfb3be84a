import math
import time
from pathlib import Path

from tests.bench.setup import Setup, part, rounds


def test_without_a_deadline_all_rounds_are_begun() -> None:
    assert list(rounds(3, math.inf)) == [0, 1, 2]
    assert part(math.inf, 0.5) == math.inf


def test_past_the_deadline_only_the_least_are_begun() -> None:
    past = time.monotonic() - 1
    assert list(rounds(5, past)) == [0]
    assert list(rounds(5, past, least=3)) == [0, 1, 2]
    assert list(rounds(1, past, least=3)) == [0]


def test_a_part_of_the_time_that_is_left() -> None:
    now = time.monotonic()
    assert now + 40 < part(now + 100, 0.5) < now + 60


def test_every_server_compiles_into_a_folder_of_its_own() -> None:
    setup = Setup(Path("model"), "bfloat16", ("--load-format", "dummy"), {"VLLM_A": "1"}, caches=Path("caches"))
    assert setup.variables("ours") == {"VLLM_A": "1", "VLLM_CACHE_ROOT": "caches/ours"}
    assert setup.arguments == ["--dtype", "bfloat16", "--load-format", "dummy"]
    assert "VLLM_CACHE_ROOT" not in Setup(Path("model"), "float32", ()).variables("ours")
