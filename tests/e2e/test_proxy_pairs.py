"""Pairs of other architectures and sizes answer as three models of transformers and peft do."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.e2e.proxy_pairs import CASES, PAIRS

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What differed, for every pair."""
    folder = tmp_path_factory.mktemp("pairs")
    command = [sys.executable, "-m", "tests.e2e.proxy_pairs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-6000:]
    pairs: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return pairs


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_answers_as_three_models(found: dict[str, dict[str, Any]], name: str) -> None:
    assert found[name]["tokens"] == []
    assert found[name]["logprob"] < 1e-3
    assert found[name]["distinct"] >= len(CASES) - 1  # a strength of 0 answers as the plain large model
