"""What scores a job's candidates, on a tiny model."""

from pathlib import Path

import pytest

from loraloom.adapters.errors import DamagedBlob
from loraloom.adapters.store import Store
from loraloom.compose.backends import opened
from loraloom.compose.errors import InvalidPool, ServerLost
from tests.compose.conftest import MakeJob


def test_a_scorer_of_the_pool_is_made_once_and_others_take_its_place(make_job: MakeJob, store: Store) -> None:
    job = make_job(holdout=0.4)
    with opened(job, store, 3) as backend:
        whole = backend.scorer(job.pool.members)
        assert backend.scorer(job.pool.members) is whole
        other = backend.scorer(job.pool.members[:2])
        assert other is not whole
        assert backend.scorer(job.pool.members) is not whole


def test_truncation_to_the_whole_rank_changes_nothing_and_below_it_does(make_job: MakeJob, store: Store) -> None:
    job, weights = make_job(holdout=0.4), (0.7, 0.0, -0.2)
    from loraloom.compose.plan import planned

    rows = planned(job.spec, store, job.pool).task.rows
    with opened(job, store, 3) as backend:
        (expected,) = backend.scorer(job.pool.members).score([weights], rows)
        losses = {}
        for rank in (6, 1):
            scorer, given = backend.truncated(job.pool.members, weights, rank)
            (scores,) = scorer.score([given], rows)
            losses[rank] = [score.nll for score in scores]
        nothing, given = backend.truncated(job.pool.members, (0.0, 0.0, 0.0), 1)
        assert given == (0.0, 0.0, 0.0)
    assert losses[6] == pytest.approx([score.nll for score in expected], abs=1e-4)
    assert losses[1] != pytest.approx([score.nll for score in expected], abs=1e-4)


def test_a_damaged_adapter_is_told(make_job: MakeJob, store: Store) -> None:
    job = make_job(holdout=0.4)
    weights = Path(store.url, "blobs", job.pool.members[0].digest, "adapter_model.safetensors")
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-8])
    with opened(job, store, 3) as backend, pytest.raises(DamagedBlob):
        backend.scorer(job.pool.members)


def test_a_server_that_is_not_there_is_told(make_job: MakeJob, store: Store) -> None:
    job = make_job(holdout=0.4, scorer="server", server={"url": "http://127.0.0.1:9", "patience": 0})
    with opened(job, store, 3) as backend:
        with pytest.raises(ServerLost):
            backend.scorer(job.pool.members)
        with pytest.raises(InvalidPool, match="cannot compare by similarity"):
            backend.similarity(job.pool.members, [])


def test_a_server_truncates_exact_mixtures_only(make_job: MakeJob, store: Store) -> None:
    fields = {"method": "lorahub", "pool": ["a", "b"], "scorer": "server"}
    job = make_job(holdout=0.4, server={"url": "http://127.0.0.1:9", "patience": 0}, **fields)
    with opened(job, store, 2) as backend, pytest.raises(InvalidPool, match="cannot truncate lorahub"):
        backend.truncated(job.pool.members, (1.0, 0.0), 2)
