"""The process of a job: what it needs, and what it leaves behind."""

import json
from pathlib import Path

import pytest

from loraloom.compose.jobs import Jobs
from loraloom.server.job_process import LOG, Child
from tests.server.job_fakes import folder_of, made


@pytest.fixture
def folder(tmp_path: Path) -> Jobs:
    return folder_of(tmp_path)


def test_memory_for_a_second_copy_of_the_base(tmp_path: Path, folder: Jobs) -> None:
    huge = tmp_path / "huge"
    huge.mkdir()
    with (huge / "model.safetensors").open("wb") as file:
        file.truncate(2**43)  # takes no space
    config = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8}
    (huge / "config.json").write_text(json.dumps(config))
    child = Child(tmp_path, tmp_path)
    assert "GiB of main memory" in child.short(made(folder, base=str(huge)))
    assert child.short(made(folder, base=str(huge), scorer="server")) == ""
    assert child.short(made(folder)) == ""


async def test_a_real_process_says_why_it_failed(tmp_path: Path, folder: Jobs) -> None:
    job = made(folder)
    process = await Child(tmp_path / "cache", tmp_path).start(job, "ll_key")
    assert await process.wait() == 1
    assert "store" in (job.folder / LOG).read_text()
