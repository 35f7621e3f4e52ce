"""Where functions of jobs run: `InThreads` of the master's process, or `InRunners` of their own.

Both are called in the job's own thread, and wait until the function has come to its end.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol

import cloudpickle

from agentic_ray.errors import SerializationError, UnknownWorkloadError
from agentic_ray.graph import capture
from agentic_ray.ids import current_ids
from agentic_ray.master.cache import ResultCache, cache_key
from agentic_ray.master.handle import UnderWay
from agentic_ray.master.jobs import JobEvent, JobFailure, JobRecord
from agentic_ray.master.jsonvalues import (
    JsonText,
    dumps,
    dumps_result,
    json_text,
    json_value,
    to_json,
)
from agentic_ray.master.logs import LogShelf
from agentic_ray.master.outcome import Died, Done
from agentic_ray.master.stages import JobStages, StageShelf
from agentic_ray.master.userfiles import file_of
from agentic_ray.master.workloads import Registry, Workload

if TYPE_CHECKING:
    from agentic_ray.master.runners.pool import RunnerPool
    from agentic_ray.runtime import JobScope
    from agentic_ray.schedule.metrics import PlacementRecord


Entered = Callable[[UnderWay], None]
"""Told of a job as soon as it can be told to stop; that may have been wished before."""


class Workplace(Protocol):
    """Where functions run."""

    def check(self, workload: Workload) -> None:
        """Refuse what cannot run there, with SerializationError."""
        ...

    def run(
        self, record: JobRecord, workload: Workload, stages: JobStages | None, entered: Entered
    ) -> Done | Died:
        """Run the function of a job to its end. Raises nothing for what the function does."""
        ...

    def close(self) -> None:
        """No more jobs come."""
        ...


class _InScope:
    """A job in a thread of this process."""

    def __init__(self, scope: JobScope) -> None:
        self._scope = scope

    @property
    def items_done(self) -> int:
        return self._scope.items_done

    @property
    def items_total(self) -> int:
        return self._scope.items_total

    def cancel(self) -> None:
        self._scope.cancel()

    def events(self) -> list[JobEvent]:
        return [
            JobEvent(event.time, event.kind, event.text, event.bundle, event.node_id)
            for event in self._scope.events()
        ]

    def placements(self) -> list[PlacementRecord]:
        return self._scope.placements()

    def placements_by_graph(self) -> list[list[PlacementRecord]]:
        return [list(one.records) for one in self._scope.fresh({})]

    def graphs(self) -> list[dict[str, Any]]:
        return [asdict(shape) for shape in self._scope.shapes()]


class InThreads:
    """Functions run in this process: they see its objects, and what crashes them ends it."""

    def check(self, workload: Workload) -> None:
        """Anything can run here."""

    def run(
        self, record: JobRecord, workload: Workload, stages: JobStages | None, entered: Entered
    ) -> Done | Died:
        # imported when first run: importing the master must not start to load Ray
        from agentic_ray.runtime import Stages, job_scope

        began = time.monotonic()
        text, result, failure = "", None, None
        with job_scope(record.id, priority=record.priority) as scope:
            try:
                scope.stages = None if stages is None else Stages(stages, scope.log)
                entered(_InScope(scope))
                value = workload.function(workload.prepare(json_value(record.params)))
                result = to_json(value, non_finite="keep")
                text = dumps_result(result)
            except BaseException as error:  # the thread is this job's alone: so is what ends it
                failure = JobFailure.of(error)
        metrics = scope.metrics(time.monotonic() - began)
        return Done(text, result, failure, None if metrics is None else asdict(metrics))

    def close(self) -> None:
        """Nothing is held."""


class InRunners:
    """Functions run in processes of their own (`runners`): they harm nobody else.

    Parameters
    ----------
    pool : RunnerPool
    logs : LogShelf
        Keeps what they print.
    session : callable
        Where the session is lent to them, now.
    memory_bytes : int, optional
        By which the process of a job may grow whose workload says nothing else.
    """

    def __init__(
        self,
        pool: RunnerPool,
        logs: LogShelf,
        session: Callable[[], str],
        memory_bytes: int | None = None,
    ) -> None:
        self._pool = pool
        self._logs = logs
        self._session = session
        self._memory_bytes = memory_bytes
        self._checked: dict[int, Workload] = {}  # (kept, so that no other takes its number)

    def check(self, workload: Workload) -> None:
        if id(workload) not in self._checked:
            _code(workload)
            self._checked[id(workload)] = workload

    def run(
        self, record: JobRecord, workload: Workload, stages: JobStages | None, entered: Entered
    ) -> Done | Died:
        # imported when first run, as above
        from agentic_ray.master.runners.assignment import Assignment, Order

        try:
            file = file_of(workload.function)
            code = None if file is not None or workload.builtin else _code(workload)
            order = Order(
                job_id=record.id,
                workload=workload.name,
                priority=record.priority,
                params=json_text(record.params).encode("ascii"),
                code=code,
                token="" if code is None else hashlib.sha256(code).hexdigest(),
                file=None if file is None else str(file.path),
                digest=None if file is None else file.digest,
                session=self._session(),
                memory_bytes=workload.memory_bytes or self._memory_bytes,
                request_id=record.request_id,
                traceparent=current_ids().trace,
            )
            runner = self._pool.take()
        except Exception as error:
            return Done(failure=JobFailure.of(error))
        log = self._logs.of(current_ids())
        assignment = Assignment(runner, stages, log)
        try:
            entered(assignment)
            return assignment.work(order)
        finally:
            self._pool.give_back(runner, fit=assignment.fit)
            log.end()
            self._logs.ended()

    def close(self) -> None:
        self._pool.close()


def run_job(
    record: JobRecord,
    workloads: Registry,
    workplace: Workplace,
    stages: StageShelf,
    cache: ResultCache | None,
    entered: Entered,
) -> Done | Died:
    """Run a job to its end, in this thread, and keep its result for equal ones. Never raises."""

    def key(workload: Workload) -> str | None:
        if cache is None:
            return None
        params = record.params
        digest = params.digest if isinstance(params, JsonText) else JsonText(dumps(params)).digest
        return cache_key(workload, record.user, digest)

    try:
        workload = workloads.get(record.workload)
        if workload.version != record.version:
            raise UnknownWorkloadError(
                f"the job is for version {record.version} of workload {record.workload!r}, "
                f"which is now at version {workload.version}"
            )
        before = key(workload)
        kept = None if record.effects else stages.of(record.id)
        ended = workplace.run(record, workload, kept, entered)
        # (Kept only if the function sees the same after it has run as before.)
        if not isinstance(ended, Done) or ended.failure is not None:
            return ended
        if cache is not None and before is not None and before == key(workload):
            cache.put(before, ended.text)
    except BaseException as error:  # the thread is this job's alone: so is what ends it
        return Done(failure=JobFailure.of(error))
    return ended


def _code(workload: Workload) -> bytes:
    """A workload as it is now, with all that its function sees."""
    if workload.builtin or file_of(workload.function) is not None:
        return b""
    try:
        # (captured: what it raises is of the same classes here and there)
        taken = replace(workload, function=capture(workload.function))
        code: bytes = cloudpickle.dumps(taken)
    except Exception as error:  # pickle raises whatever the objects' hooks raise
        raise SerializationError(
            f"workload {workload.name!r} cannot be sent to a process of its own: {error}. Make "
            "open files, locks, sockets and events inside the function, or put it in a file and "
            "load it with load_workloads; Master(runners=0) runs jobs in threads of this process"
        ) from error
    return code
