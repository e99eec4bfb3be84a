"""/v1/compose/jobs: learn a composition of adapters beside the server, and watch it being learned."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Header, Request
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel

from loraloom.compose.errors import DamagedJob, InvalidPool, InvalidSpec, JobNotFound
from loraloom.compose.jobs import Job
from loraloom.compose.plan import Plan, planned
from loraloom.compose.spec import JobSpec, Publish, Server, spec_from
from loraloom.compose.trials import Trial
from loraloom.server import draining
from loraloom.server.access.access import Role
from loraloom.server.access.view import View
from loraloom.server.aside import threads
from loraloom.server.errors import InvalidBody, JobsUnwritable, NotServed, WrongContentType
from loraloom.server.gate.body import check_values, parse, read
from loraloom.server.gate.gate import Gate
from loraloom.server.job_standing import Standing, without_folders
from loraloom.server.routes.followed_job import FollowedJob
from loraloom.server.routes.gated import Gated, GatedRoute, Seen
from loraloom.server.routes.json_body import media_type
from loraloom.server.routes.publication import check_publishable

router = APIRouter(prefix="/v1/compose/jobs", route_class=GatedRoute, tags=["LoraLoom"])

LOOK = 0.25
"""Seconds between two looks for what a stream could tell."""
_EVENT_DIGITS = 9
HEARTBEAT = 15.0
"""Seconds of silence after which a stream says that it is still there."""
PATIENCE = 600.0
"""Seconds that a job's requests wait for this server, unless told: everybody else's come first."""
MOST_PATIENCE = 3600.0
"""Seconds that they may wait at the most: all keys' jobs wait for the one that runs."""
REPORT_HEADERS = {"content-security-policy": "sandbox"}
"""A report shows what models have written: it gets no say on this server."""


class JobView(BaseModel, frozen=True):
    """A job, and where it stands.

    Attributes:
        status: `queued` until its turn comes; then as `loraloom compose show` says it.
        reason: why it ended before it was done, or what it waits for.
        trials: done so far.
        best: the smallest objective so far.
        ahead: jobs that come before it.
    """

    id: str
    name: str
    status: str
    reason: str
    created: str
    trials: int
    best: float | None
    ahead: int | None


class JobDetails(JobView, frozen=True):
    """A job with what was found, as in its `result.json`."""

    result: Mapping[str, Any] | None


class JobList(BaseModel, frozen=True):
    """All jobs in this server's folder, the oldest first."""

    object: Literal["list"] = "list"
    data: list[JobView]


@router.post("", status_code=202)
async def submit(request: Request, gate: Gated, seen: Seen) -> JobView:
    """Check a job, and let it wait for its turn.

    The body is a job's description as JSON, with its examples in it.
    """
    spec = _own(spec_from(await _body(request, gate)), request, gate)
    check_publishable(gate, seen, spec.name)

    def make() -> Job:
        plan = _planned(spec, seen)
        try:
            return gate.jobs.jobs.create(plan, gate.store.url, owner=seen.access.owner)
        except OSError as error:
            raise JobsUnwritable(f"the job cannot be written down ({error.strerror}): try again later") from error

    return await _view(await gate.jobs.submit(make, seen.access), gate)


@router.get("")
async def jobs(gate: Gated, seen: Seen) -> JobList:
    """Every job of the key's, those of earlier servers on the same folder too; an administrator sees all."""
    found = await asyncio.to_thread(gate.jobs.jobs.list, _owned(seen))
    return JobList(data=[await _view(job, gate) for job in found])


@router.get("/{id}")
async def job(id: str, gate: Gated, seen: Seen) -> JobDetails:
    """One job, with its result if it is done."""
    found, standing = await gate.jobs.find(id, _owned(seen))
    result = await asyncio.to_thread(found.result)
    fields = await asyncio.to_thread(_fields, found, standing)
    return JobDetails(**fields, result=None if result is None else asdict(result))


@router.get("/{id}/events")
async def events(id: str, gate: Gated, seen: Seen, last_event_id: str = Header("0")) -> StreamingResponse:
    """What happens to a job, from its beginning or from `Last-Event-ID` on, as server-sent events.

    `trial`: a line of its log, numbered from 1. `status`: where it stands, when that changes. `end`: nothing more will
    come, unless the job is resumed.
    """
    found, _ = await gate.jobs.find(id, _owned(seen))
    if not last_event_id.isdecimal() or len(last_event_id) > _EVENT_DIGITS:
        raise InvalidBody("Last-Event-ID is the number of a trial")
    stream = _events(found, gate, int(last_event_id))
    return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})


@router.get("/{id}/report")
async def report(id: str, gate: Gated, seen: Seen) -> FileResponse:
    """The report of a job that is done, as HTML."""
    found, standing = await gate.jobs.find(id, _owned(seen))
    path = found.folder / "report.html"
    if not path.is_file():
        raise JobNotFound(f"the job {id} has no report: it is {standing.status}, and only one that is done has one")
    return FileResponse(path, media_type="text/html", headers=REPORT_HEADERS)


@router.post("/{id}/cancel")
async def cancel(id: str, request: Request, gate: Gated, seen: Seen) -> JobView:
    """End a job soon; what it has found so far is kept, and it can be resumed."""
    _check_not_a_form(request)
    return await _view(await gate.jobs.cancel(id, _owned(seen)), gate)


@router.post("/{id}/resume", status_code=202)
async def resume(id: str, request: Request, gate: Gated, seen: Seen) -> JobView:
    """Let a job that has ended before it was done go on, when its turn comes."""
    _check_not_a_form(request)
    found, _ = await gate.jobs.find(id, _owned(seen))
    await asyncio.to_thread(_check_still_allowed, found, gate, seen)
    return await _view(await gate.jobs.resume(id, seen.access, _owned(seen)), gate)


def _owned(seen: View) -> Callable[[Job], bool]:
    """Which jobs exist for whoever asks."""
    return lambda job: seen.access.has(Role.ADMIN) or job.owner == seen.access.owner


def _check_still_allowed(job: Job, gate: Gate, seen: View) -> None:
    """What a key may do can have become less since it made the job; raises `Forbidden`, `AdapterNotFound`."""
    check_publishable(gate, seen, job.spec.name)
    for name in job.pool.names:
        seen.check_seen(name.partition("@")[0])


async def _body(request: Request, gate: Gate) -> dict[str, Any]:
    """The JSON object in the body, whatever `curl -d` says that it is."""
    _check_not_a_form(request)
    raw = await read(request.receive, gate.settings.max_body_bytes)
    check_values(raw, gate.engine.max_model_len)
    return parse(raw)


def _check_not_a_form(request: Request) -> None:
    """A web page of somebody else's can send a form without asking this server first, but not JSON that says so."""
    given = media_type(request)
    if given != "application/json" and "origin" in request.headers:
        raise WrongContentType(f"send JSON with `content-type: application/json`, not {given[:100] or 'without one'!r}")


def _own(spec: JobSpec, request: Request, gate: Gate) -> JobSpec:
    """The job as it will run here: with this server's base, URL and share of the processors; raises `NotServed`."""
    _check_reads_nothing(spec)
    _check_ends(spec)
    base = gate.base if spec.base is None else gate.base.named(spec.base)
    asked, url = spec.server.model_dump(exclude_unset=True), _url(request, gate)
    if asked.get("url", url).rstrip("/") not in (url, str(request.base_url).rstrip("/")):
        raise NotServed(
            "a job here is scored by this server: leave `server.url` out, or use `loraloom compose run`",
            param="server.url",
        )
    # Each request holds a place for its mixture while it waits: most places are for others.
    most = max(1, min(spec.server.concurrency, gate.settings.max_cpu_loras // 4))
    return spec.model_copy(
        update={
            "base": base.model,
            "server": Server(**{"timeout": PATIENCE, "patience": PATIENCE, **asked, "url": url, "concurrency": most}),
            "threads": min(spec.threads or threads(), threads()),
            "publish": _served(spec.publish, gate.selector.max_rank),
        }
    )


def _served(publish: Publish, rank: int) -> Publish:
    """What is published here must be served here."""
    return publish.model_copy(update={"rank": rank}) if publish.rank == "auto" else publish


def _planned(spec: JobSpec, seen: View) -> Plan:
    """What the job will do; a refusal, which names the base for people on this machine, is told without its folders."""
    try:
        return planned(spec, seen)
    except (InvalidPool, InvalidSpec) as error:
        raise type(error)(without_folders(str(error))) from error


def _check_reads_nothing(spec: JobSpec) -> None:
    """Files would be those of the machine that the server runs on."""
    for field in ("examples", "holdout"):
        if isinstance(getattr(spec, field), Path):
            raise NotServed(f"`{field}` must be the examples themselves: this server reads no files", param=field)


def _check_ends(spec: JobSpec) -> None:
    """One job must not hold the place of all others for ever."""
    for field in ("timeout", "patience"):
        if (seconds := getattr(spec.server, field)) > MOST_PATIENCE:
            raise NotServed(
                f"a job here waits for an answer for up to {MOST_PATIENCE:g} s, and not {seconds:g}: make "
                f"`server.{field}` smaller, or leave it out",
                param=f"server.{field}",
            )


def _url(request: Request, gate: Gate) -> str:
    """This server's, from the same machine: where the request came in."""
    host, port = request.scope.get("server") or (gate.settings.host, gate.settings.port)
    return f"http://{f'[{host}]' if ':' in host else host}:{port or 80}"


async def _view(job: Job, gate: Gate) -> JobView:
    return JobView(**await asyncio.to_thread(_fields, job, await gate.jobs.standing(job)))


def _fields(job: Job, standing: Standing) -> dict[str, Any]:
    return {"id": job.id, "name": _name(job), "created": job.created, **asdict(standing)}


def _name(job: Job) -> str:
    """Also of a job that this version cannot read: one must not hide the others."""
    try:
        return job.name
    except DamagedJob:
        return ""


async def _events(job: Job, gate: Gate, seen: int) -> AsyncIterator[str]:
    """Trials first, then the status, so that the end comes after the last trial."""
    followed = FollowedJob(job.folder)
    last, spoke = None, time.monotonic()
    while True:
        if draining.BEGUN.is_set():  # who watches goes on at the next server, from `Last-Event-ID`
            return
        standing = await gate.jobs.standing(followed)
        for trial in (await asyncio.to_thread(_trials, followed))[seen:]:
            seen, spoke = seen + 1, time.monotonic()
            yield f"event: trial\nid: {seen}\ndata: {trial.line()}\n"
        told = replace(standing, trials=0, best=None)
        if told != last:
            last, spoke = told, time.monotonic()
            yield _event("status", standing)
        if standing.ended:
            yield _event("end", standing)
            return
        if time.monotonic() - spoke > HEARTBEAT:
            spoke = time.monotonic()
            yield ": still there\n\n"
        await asyncio.sleep(LOOK)


def _trials(job: Job) -> list[Trial]:
    """None of a log that cannot be read: where the job stands says why."""
    try:
        return job.trials()
    except DamagedJob:
        return []


def _event(name: str, standing: Standing) -> str:
    return f"event: {name}\ndata: {json.dumps(asdict(standing))}\n\n"
