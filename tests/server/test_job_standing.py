"""Where a job stands, as clients are told."""

import pytest

from loraloom.server.job_standing import Standing, without_folders


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("[Errno 28] No space left: '/srv/jobs/blend-1/trials.jsonl'", "[Errno 28] No space left: 'trials.jsonl'"),
        ("/srv/jobs/x.json: repair that", "x.json: repair that"),
        ("no file:///srv/a/b", "no b"),
        ("/srv/a.json and (/srv/b.json)", "a.json and (b.json)"),
        ("http://127.0.0.1:8000/v1/x does not answer", "http://127.0.0.1:8000/v1/x does not answer"),
        ("adapter 'team/sql' or team/date, 3/4 of it", "adapter 'team/sql' or team/date, 3/4 of it"),
        ("", ""),
    ],
)
def test_why_it_ended_names_no_folders_of_the_server(reason: str, told: str) -> None:
    assert without_folders(reason) == told


@pytest.mark.parametrize("status", ["queued", "running", "created", "interrupted", "cancelled", "failed", "done"])
def test_what_waits_or_runs_has_not_ended(status: str) -> None:
    standing = Standing(status)  # type: ignore[arg-type]
    assert standing.ended == (status not in ("queued", "running"))
