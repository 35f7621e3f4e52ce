"""The routes of the page: its files, ``/events`` and, for the page alone, ``/view/…``."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final, Protocol

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from agentic_ray.errors import UnknownJobError
from agentic_ray.master import JobRecord, JobState, Workload
from agentic_ray.master.jsonvalues import dumps_result, json_text
from agentic_ray.service.bodies import JsonResponse, RequestError, plain
from agentic_ray.service.described import EVENTS, EVENTS_OF
from agentic_ray.service.page.feed import KINDS, EventFeed, Kind
from agentic_ray.service.page.files import INDEX, load_files
from agentic_ray.service.page.shown import MOST_ROWS, Filter, Sees, Snapshot, listing, row
from agentic_ray.service.page.telemetry import SAMPLE_SECONDS, Samples
from agentic_ray.service.served import ServedMaster
from agentic_ray.telemetry import ClusterState

MOST_FOLLOWERS: Final = 1_000
_PROGRESS_SECONDS: Final = 0.5
_REST: Final = 5  # a snapshot is used for so many times as long as it takes to make it
_SHOWN_BYTES: Final = 256 << 10
_SHORT: Final = 100
_STREAM_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # a proxy is to pass events on at once
}


class _Caller(Protocol):
    """Who sent a request, as the guard may have found out."""

    def may_see(self, owner: str) -> bool: ...


def seen_by(request: Request) -> Sees:
    """Whose jobs may be seen by who makes a request: everybody's, where nobody is told apart."""
    caller: _Caller | None = getattr(request.state, "caller", None)
    return (lambda user: True) if caller is None else caller.may_see


class Page:
    """State that the routes share: the feed of events, samples of the cluster, the newest list of
    jobs.

    Parameters
    ----------
    master : Master or DistantMaster
    cluster : callable
        Gives the state of the cluster.
    sees : callable
        Gives, for a request, whose jobs may be seen by who makes it.
    """

    def __init__(
        self,
        master: ServedMaster,
        cluster: Callable[[], ClusterState],
        sees: Callable[[Request], Sees] = seen_by,
    ) -> None:
        self.master = master
        self.sees = sees
        self.feed = EventFeed()
        self.samples = Samples(cluster)
        self._looking: asyncio.Task[None] | None = None
        self._snapshot = Snapshot([], "")
        self._due = 0.0
        self._listing = threading.Lock()
        master.watch(self.feed.publish, self.feed.miss)

    def close(self) -> None:
        """End all streams: the server stops."""
        self.feed.close()

    def jobs(self) -> Snapshot:
        """All jobs. The same snapshot for all who ask within a moment: making it takes a while."""
        with self._listing:
            began = time.monotonic()
            if self._snapshot.position != self.feed.position and began >= self._due:
                position = self.feed.position
                self._snapshot = Snapshot(self.master.jobs()[::-1], position)
                now = time.monotonic()
                self._due = now + _REST * (now - began)
            return self._snapshot

    def record(self, request: Request, job_id: str) -> JobRecord:
        """A job that whoever asks may see.

        Raises
        ------
        UnknownJobError
            There is none, as far as they may know.
        """
        record = self.master.record(job_id)
        if not self.sees(request)(record.user):
            raise UnknownJobError(f"no job {job_id!r}")
        return record

    def follow(self, request: Request, **which: Any) -> StreamingResponse:
        """The answer that streams events."""
        if self.feed.followers >= MOST_FOLLOWERS:
            raise RequestError(503, f"{MOST_FOLLOWERS} others follow already", "TooManyStreams")
        after = request.headers.get("last-event-id")
        frames = self.feed.follow(self.sees(request), after=after, **which)
        return StreamingResponse(
            self._followed(frames), media_type="text/event-stream", headers=_STREAM_HEADERS
        )

    async def _followed(self, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        async for made in frames:
            yield made

    async def _look(self) -> None:
        """Look how far jobs are, and at the cluster, for as long as somebody follows."""
        due = 0.0
        await asyncio.sleep(0)  # until who started this counts as following
        while self.feed.followers:
            self.feed.tell_progress(await run_in_threadpool(self.master.progress))
            if time.monotonic() >= due:
                due = time.monotonic() + SAMPLE_SECONDS
                self.feed.tell_cluster(await run_in_threadpool(self.samples.take))
            await asyncio.sleep(_PROGRESS_SECONDS)


def add_page(app: FastAPI, page: Page) -> None:
    """Register the routes."""
    files = load_files()

    def answer(request: Request, name: str) -> Response:
        found = files.get(name)
        if found is None:
            raise RequestError(404, f"no file {name!r}", "NotFound")
        headers = request.headers
        status, body, given = found.answer(
            headers.get("accept-encoding"), headers.get("if-none-match")
        )
        return Response(body, status, given)

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return answer(request, INDEX)

    @app.get("/page/{name}", include_in_schema=False)
    async def file(request: Request, name: str) -> Response:
        return answer(request, name)

    @app.get("/events", **EVENTS)
    async def events(request: Request, kinds: str = "job,progress") -> Response:
        wanted = [kind for kind in kinds.split(",") if kind]
        strange = [kind for kind in wanted if kind not in KINDS]
        if strange or not wanted:
            raise RequestError(422, f"kinds: {', '.join(KINDS)} are there, not {kinds!r}")
        chosen: list[Kind] = [kind for kind in KINDS if kind in wanted]
        return page.follow(request, kinds=chosen)

    @app.get("/events/{task_id}", **EVENTS_OF)
    async def events_of(request: Request, task_id: str) -> Response:
        await run_in_threadpool(page.record, request, task_id)

        def over() -> bool:
            return page.master.record(task_id).state.finished

        return page.follow(request, kinds=("job", "progress"), job_id=task_id, over=over)

    _add_views(app, page)


def _add_views(app: FastAPI, page: Page) -> None:
    """Add routes that only the page asks. They change with the page; programs use the API."""

    @app.get("/view/jobs", include_in_schema=False)
    def jobs(
        request: Request,
        state: str = "",
        workload: str = "",
        user: str = "",
        text: str = "",
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=0, le=MOST_ROWS)] = 50,
    ) -> Response:
        try:
            states = frozenset(JobState(name) for name in state.split(",") if name)
        except ValueError as error:
            raise RequestError(422, f"state: {error}") from None
        wanted = Filter(states, workload, user, text.strip())
        return JsonResponse(plain(listing(page.jobs(), wanted, page.sees(request), offset, limit)))

    @app.get("/view/jobs/{task_id}", include_in_schema=False)
    def job(request: Request, task_id: str) -> Response:
        record = page.record(request, task_id)
        params = json_text(record.params)
        shown = row(record)
        if record.error is not None:
            shown["error"] = record.error.to_dict()
        shown["effects"] = record.effects
        shown["params_bytes"] = len(params)
        if len(params) <= _SHOWN_BYTES:
            shown["params"] = _text(json.loads(params))
        if record.state is JobState.SUCCEEDED:
            result = dumps_result(record.result)
            shown["result_bytes"] = len(result)
            if len(result) <= _SHOWN_BYTES:
                shown["result"] = _text(record.result)
        return JsonResponse(plain(shown))

    @app.get("/view/jobs/{task_id}/trace", include_in_schema=False)
    def trace(request: Request, task_id: str) -> Response:
        page.record(request, task_id)
        return JsonResponse(page.master.trace(task_id).to_dict())

    @app.get("/view/workloads", include_in_schema=False)
    def workloads() -> Response:
        known = page.master.workloads.snapshot().values()
        return JsonResponse({"workloads": [_described(one) for one in known]})

    @app.get("/view/cluster", include_in_schema=False)
    def cluster() -> Response:
        return JsonResponse(plain(page.samples.history()))


def _text(value: Any) -> str:
    """JSON for people to read: as text, since a browser's numbers hold 16 digits only."""
    short = json.dumps(value, ensure_ascii=False)
    return short if len(short) <= _SHORT else json.dumps(value, ensure_ascii=False, indent=2)


def _described(workload: Workload) -> dict[str, Any]:
    """A workload for the page's form: what it is, and the JSON schema of its params if there is
    one."""
    return {
        "name": workload.name,
        "version": workload.version,
        "effects": workload.effects,
        "schema": workload.json_schema,
        "summary": workload.description,
    }
