"""`submit`: one call of a function where its resources are, as a job that is waited for later."""

from __future__ import annotations

import threading
import uuid
import weakref
from collections.abc import Generator, Sequence
from typing import Any

from agentic_ray.awaiting import in_thread
from agentic_ray.errors import InvalidArgumentError, JobCancelledError, JobTimeoutError
from agentic_ray.functions.declared import Function
from agentic_ray.functions.mapping import batch_sizer
from agentic_ray.graph import CostHint, Task, TaskGraph
from agentic_ray.pictures import Timeline
from agentic_ray.runtime import Run, RunEvent, get_session, pack, writable
from agentic_ray.runtime.functions.call import Arguments, joined
from agentic_ray.schedule.metrics import Metrics, PlacementRecord
from agentic_ray.tracebacks import entry


class FunctionJob:
    """A call of a function under way; made by `agentic_ray.submit`. Safe to use from any thread.

    It runs whether or not anybody waits. Its value can be any that can be pickled.
    """

    def __init__(
        self, name: str, run: Run, *, batched: bool, timeout_seconds: float | None
    ) -> None:
        self.id = run.graph_id
        self._name = name
        self._run = run
        self._batched = batched
        self._late = threading.Event()
        if timeout_seconds is not None:
            timer = threading.Timer(timeout_seconds, _stop, (run, self._late))
            timer.daemon = True
            timer.start()
            run.on_done(timer.cancel)
        # The value of a job that nobody holds is not kept.
        weakref.finalize(self, run.on_done, run.release).atexit = False

    @entry
    def result(self, timeout: float | None = None) -> Any:
        """Wait for the value. Arrays in it can be written to, whatever their size.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; the call goes on after that.

        Raises
        ------
        JobTimeoutError
            It is not there in time, or the call took longer than it may.
        JobCancelledError
            The job was cancelled.
        The user's own exception, and the errors of `agentic_ray.map`
        """
        try:
            parts = self._run.result(timeout)
        except JobCancelledError:
            if self._late.is_set():
                raise JobTimeoutError(f"{self._name} took longer than it may") from None
            raise
        if self._batched:
            return writable(joined(parts))
        ((value,),) = parts
        return writable(value)

    @property
    def done(self) -> bool:
        """Whether it has ended, with a value or an error."""
        return self._run.done

    def status(self) -> str:
        """Return ``"running"`` (also while it waits for resources), ``"succeeded"``, ``"failed"``
        or ``"cancelled"``."""
        if not self._run.done:
            return "running"
        if self._run.error is None:
            return "succeeded"
        return "cancelled" if isinstance(self._run.error, JobCancelledError) else "failed"

    def cancel(self) -> bool:
        """Stop the call; False if it has ended already."""
        if self._run.done:
            return False
        self._run.cancel()
        return True

    def events(self) -> list[RunEvent]:
        """List what happened to the call, in order."""
        return self._run.events()

    def placements(self) -> list[PlacementRecord]:
        """List where the call ran and why."""
        return self._run.placements()

    def timeline(self, path: str | None = None) -> Timeline:
        """Return where and when it ran as a picture; write it to ``path`` too."""
        return self._run.timeline(path)

    @property
    def metrics(self) -> Metrics:
        """E, L, D and F of the call so far."""
        return self._run.metrics

    def __await__(self) -> Generator[Any, None, Any]:
        """``await job``: as `result`, in a thread. Cancelling what waits leaves the call as it
        is."""
        return in_thread(self.result, cancelled=lambda: None).__await__()

    def __repr__(self) -> str:
        return f"<job {self.id} of {self._name}: {self.status()}>"


def submit(
    function: Function,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    *,
    priority: int = 0,
    timeout_seconds: float | None = None,
) -> FunctionJob:
    """Call a function where its resources are; return at once. See `agentic_ray.submit`."""
    if timeout_seconds is not None and not timeout_seconds > 0:
        raise InvalidArgumentError(f"timeout_seconds must be > 0, not {timeout_seconds!r}")
    session = get_session()
    codelet = function.codelet
    batches: list[Any] = [[Arguments(tuple(args), kwargs)]]
    if function.batched:
        items = _items(function, args, kwargs)
        size = batch_sizer(function, codelet.name, session.model).size
        batches = [items[at : at + size] for at in range(0, max(len(items), 1), size)]
    name = f"{codelet.name}-{uuid.uuid4().hex[:8]}"
    tasks, first = [], 0
    for batch in batches:
        tasks.append(
            Task(
                f"{name}-{first}",
                codelet,
                (first, pack(batch)),
                {"stop": len(batch)},
                resources=function.resources,
                cost=CostHint(items=max(1, len(batch))),
            )
        )
        first += len(batch)
    run = session.submit(
        TaskGraph(tasks, [task.key for task in tasks]), priority=priority, asked=max(1, first)
    )
    return FunctionJob(codelet.name, run, batched=function.batched, timeout_seconds=timeout_seconds)


def _items(function: Function, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Return the items of a call of a function of batches: its only argument."""
    if len(args) != 1 or kwargs:
        raise InvalidArgumentError(
            f"{function.codelet.name} takes batches of items: submit it with one list or array"
        )
    (items,) = args
    return items if hasattr(items, "__array_namespace__") else list(items)


def _stop(run: Run, late: threading.Event) -> None:
    if not run.done:
        late.set()
        run.cancel()
