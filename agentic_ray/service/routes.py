"""Routes about jobs: submit, ask, cancel, retry and list them; and the workloads there are."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from agentic_ray.errors import UnknownJobError
from agentic_ray.master import JobRecord, JobState
from agentic_ray.master.jsonvalues import cut_name
from agentic_ray.master.workloads import DEFAULT
from agentic_ray.service import described
from agentic_ray.service.access import Caller, caller_of
from agentic_ray.service.audit import Audit
from agentic_ray.service.bodies import (
    JsonResponse,
    RequestError,
    idempotency_key,
    is_json,
    plain,
    too_large,
)
from agentic_ray.service.content import (
    ContentResponse,
    chosen_form,
    result_content,
    span_of,
    status_content,
)
from agentic_ray.service.data import DataShelf
from agentic_ray.service.reading import Reader, read_body
from agentic_ray.service.served import ServedMaster

_BODY_SECONDS: Final = 60.0
_BODIES_BYTES: Final = 512 << 20
_LISTED: Final = 100
_LISTED_MOST: Final = 1000
_LOOKED_AT: Final = 20_000
_AT_ONCE: Final = 2_000
_LINES_MOST: Final = 1000
_LARGE_BYTES: Final = 256 << 10
_ON_UPLOADS: Final = {DEFAULT: "sum_of_squares"}
"""The workload that does the same with uploaded data."""


class BodyBudget:
    """Bytes of bodies that are under way, all together; used by the event loop only."""

    def __init__(self, limit: int = _BODIES_BYTES) -> None:
        self._left = limit

    @contextmanager
    def share(self) -> Iterator[_Share]:
        """Take one body's share of the budget; give it back at the end."""
        share = _Share(self)
        try:
            yield share
        finally:
            self._left += share.taken

    def take(self, size: int) -> None:
        """Take so many bytes, or raise RequestError 503."""
        if size > self._left:
            raise RequestError(
                503, "too many large bodies are under way", "TooManyBodies", {"Retry-After": "1"}
            )
        self._left -= size


@dataclass(slots=True)
class _Share:
    budget: BodyBudget
    taken: int = 0

    def add(self, size: int) -> None:
        self.budget.take(size)
        self.taken += size


@dataclass(frozen=True, slots=True)
class Service:
    """Parts that the routes work with."""

    master: ServedMaster
    reader: Reader
    budget: BodyBudget
    max_body_bytes: int
    data: DataShelf
    audit: Audit | None = None

    def note(self, caller: Caller, action: str, what: str, **details: Any) -> None:
        """Write a line of the audit log, if there is one."""
        if self.audit is not None:
            self.audit.note(caller.user, caller.token_id, action, what, details)

    def at_hand(self, caller: Caller, job_id: str) -> JobRecord | None:
        """As `job`, if the master knows it without having to wait; else None."""
        record = self.master.at_hand(job_id)
        return record if record is not None and caller.may_see(record.user) else None

    def job(self, caller: Caller, job_id: str) -> JobRecord:
        """A job that this caller may see, without a result that is stored apart.

        Raises
        ------
        UnknownJobError
            There is none. Those of others are as unknown as those that never were.
        """
        try:
            record = self.master.outline(job_id)
        except UnknownJobError:
            record = None
        if record is None or not caller.may_see(record.user):
            raise UnknownJobError(f"no job {cut_name(job_id)}; it never was, or is forgotten")
        return record


def add_job_routes(app: FastAPI, service: Service) -> None:
    """Add them to the application."""
    master = service.master

    @app.post("/submit", **described.SUBMIT)
    async def submit(request: Request) -> Response:
        if not is_json(request.headers.get("content-type")):
            raise RequestError(415, "send the body as Content-Type: application/json", "NotJson")
        with service.budget.share() as share:
            raw = await _read_body(request, service.max_body_bytes, share)
            key = request.headers.get("idempotency-key")
            answer = await run_in_threadpool(_submit, service, caller_of(request), raw, key)
        return JsonResponse(answer, 202, {"Location": f"/status/{answer['task_id']}"})

    def status_of(record: JobRecord) -> Response:
        if _is_small(record):
            return JsonResponse(plain(record.to_dict()))
        return ContentResponse(status_content(master, record), "application/json", {})

    @app.get("/status/{task_id}", **described.STATUS)
    async def status(request: Request, task_id: str) -> Response:
        # Here, in the event loop, unless it may take long: a thread would have to be waited for,
        # and these are busy with submits that wait for the journal.
        caller = caller_of(request)
        record = service.at_hand(caller, task_id)
        if record is not None and _is_small(record):
            return status_of(record)
        return await run_in_threadpool(lambda: status_of(service.job(caller, task_id)))

    @app.get("/result/{task_id}", **described.RESULT)
    def result(request: Request, task_id: str) -> Response:
        record = service.job(caller_of(request), task_id)
        if record.state is not JobState.SUCCEEDED:
            raise _without_result(record)
        form = chosen_form(request.headers.get("accept"))
        content = result_content(master, record, form)
        try:
            tag = hashlib.sha256(f"{record.id} {record.finished_at} {form}".encode()).hexdigest()
            etag = f'"{tag[:32]}"'
            headers = {"Accept-Ranges": "bytes", "ETag": etag, "Vary": "Accept"}
            wanted = request.headers.get("range")
            if request.headers.get("if-range", etag) != etag:
                wanted = None
            return ContentResponse(content, form, headers, span_of(wanted, content.size))
        except BaseException:
            content.file.close()
            raise

    @app.get("/jobs", **described.JOBS)
    def jobs(
        request: Request,
        state: Annotated[list[JobState] | None, Query()] = None,
        workload: str | None = None,
        user: str | None = None,
        tag: Annotated[list[str] | None, Query()] = None,
        created_after: Annotated[float | None, Query(allow_inf_nan=False)] = None,
        created_before: Annotated[float | None, Query(allow_inf_nan=False)] = None,
        limit: Annotated[int, Query(ge=1, le=_LISTED_MOST)] = _LISTED,
        cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$")] = None,
    ) -> Response:
        caller = caller_of(request)

        def fits(record: JobRecord) -> bool:
            return (
                caller.may_see(record.user)
                and (state is None or record.state in state)
                and workload in (None, record.workload)
                and user in (None, record.user)
                and set(tag or ()) <= set(record.tags)
                and (created_after is None or record.created_at > created_after)
                and (created_before is None or record.created_at < created_before)
            )

        owner = user if caller.is_admin else caller.user
        plain_list = not (state or workload or tag or created_after or created_before)
        if user not in (None, owner):
            return JsonResponse({"jobs": [], "total": 0, "next": None})
        before = None if cursor is None else int(cursor)
        found, following = _page_of(master, fits, owner, before, limit)
        total = len(found) if cursor is None and following is None else None
        if plain_list:
            total = master.count(owner)
        shown = [record.to_dict(with_result=False) for record in found]
        answer = {"jobs": shown, "total": total}
        return JsonResponse(plain(answer | {"next": None if following is None else f"{following}"}))

    @app.get("/logs/{task_id}", **described.LOGS)
    def logs(
        request: Request, task_id: str, first: Annotated[int, Query(ge=0, le=1 << 62)] = 0
    ) -> Response:
        record = service.job(caller_of(request), task_id)
        lines = master.logs(record.id, first)[:_LINES_MOST]
        following = lines[-1].number + 1 if lines else first
        whole = record.state.finished and len(lines) < _LINES_MOST
        shown = [asdict(line) for line in lines]
        return JsonResponse(plain({"lines": shown, "next": following, "finished": whole}))

    @app.post("/cancel/{task_id}", **described.CANCEL)
    def cancel(request: Request, task_id: str) -> Response:
        caller = caller_of(request)
        record = service.job(caller, task_id)
        master.cancel(record.id)
        service.note(caller, "cancel", record.id)
        return status_of(service.job(caller, record.id))

    @app.post("/retry/{task_id}", **described.RETRY)
    def retry(request: Request, task_id: str) -> Response:
        caller = caller_of(request)
        record = service.job(caller, task_id)
        if not record.state.finished:
            raise RequestError(
                409, f"job {record.id} is {record.state.value}: cancel it first", "NotFinished"
            )
        again = master.retry(record.id)
        service.note(caller, "retry", again.id, of=record.id)
        answer = {"task_id": again.id, "retry_of": record.id}
        return JsonResponse(answer, 202, {"Location": f"/status/{again.id}"})

    @app.get("/workloads", **described.WORKLOADS)
    def workloads() -> Response:
        shown = [
            {
                "name": each.name,
                "version": each.version,
                "description": each.description,
                "effects": each.effects,
                "cache": each.cache,
                "builtin": each.builtin,
                "schema": each.json_schema,
            }
            for _, each in sorted(master.workloads.snapshot().items())
        ]
        return JsonResponse(plain({"workloads": shown}))


def _page_of(
    master: ServedMaster,
    fits: Callable[[JobRecord], bool],
    owner: str | None,
    before: int | None,
    limit: int,
) -> tuple[list[JobRecord], int | None]:
    """Jobs that fit, newest first, and where to go on; None: there are no more.

    Looks at so many jobs at most, so that a filter that hardly any job passes costs no more: then
    it may be few that are found, though there are more.
    """
    found: list[JobRecord] = []
    looked = 0
    while len(found) <= limit:
        if looked >= _LOOKED_AT:
            return found, before
        count = max(limit + 1, _AT_ONCE if looked else 0)
        records = master.page(before, owner, count)
        looked += len(records)
        found += filter(fits, records)
        if len(records) < count and len(found) <= limit:
            return found, None
        before = records[-1].sequence
    return found[:limit], found[limit - 1].sequence


def _submit(service: Service, caller: Caller, raw: bytes, key: str | None) -> dict[str, Any]:
    """Parse, check and submit: in a thread, for a large body and the journal take their time."""
    known = service.master.workloads.snapshot()
    builtin = frozenset(name for name, each in known.items() if each.builtin)
    submission = read_body(service.reader, raw, builtin)
    body = submission.body
    user = caller.user if body.user is None else body.user
    caller.may_act_for(user)
    workload, parameters = body.workload, submission.parameters
    if submission.has_refs and service.master.workloads.get(body.workload).builtin:
        workload = _ON_UPLOADS.get(workload, workload)
        parameters = service.data.resolve(parameters, user)
    job = service.master.submit(
        workload,
        parameters,
        priority=body.priority,
        timeout_seconds=body.timeout_seconds,
        deadline_seconds=body.deadline_seconds,
        user=user,
        idempotency_key=idempotency_key(key, body.idempotency_key),
        cache=body.cache,
        tags=body.tags,
    )
    service.note(caller, "submit", job.id, workload=workload, user=user)
    return {"task_id": job.id} | ({"cached": True} if job.record.cached else {})


async def _read_body(request: Request, limit_bytes: int, share: _Share) -> bytes:
    """The body, read no further than the limit and not for ever."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > limit_bytes:
                    raise too_large(limit_bytes)
                share.add(len(part))
                parts.append(part)
    except TimeoutError:
        raise RequestError(
            408, f"the body did not arrive within {_BODY_SECONDS:g} seconds", "BodyTooSlow"
        ) from None
    except ClientDisconnect:
        raise RequestError(400, "the connection ended within the body") from None
    return b"".join(parts)


def _is_small(record: JobRecord) -> bool:
    return record.result_reference is None and record.size_bytes < _LARGE_BYTES


def _without_result(record: JobRecord) -> RequestError:
    if not record.state.finished:
        return RequestError(
            409,
            f"job {record.id} is {record.state.value}; its result is not there yet",
            "NotFinished",
            {"Retry-After": "1"},
        )
    told = "" if record.error is None else f": {record.error.line}"
    return RequestError(409, f"job {record.id} {record.state.value}{told}", "NoResult")
