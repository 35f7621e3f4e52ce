"""Queues calls, sends them in batches, and tells each call's receiver how it ended.

A thread serves the queue while there is work; it ends with the work, so that nothing has to be
closed, and a program that ends waits for the calls it has made.
"""

from __future__ import annotations

import contextvars
import itertools
import logging
import math
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from agentic_ray.errors import (
    BrokenExecutorError,
    InterruptedJobError,
    InvalidTypeError,
    JobCancelledError,
    PoisonTaskError,
    SessionError,
)
from agentic_ray.graph import Codelet, CostHint, Resources, Task, TaskGraph, capture, content_key
from agentic_ray.graph.captured import name_of
from agentic_ray.interop.calls.batches import Pace
from agentic_ray.interop.calls.parcels import Packed, pack_arguments, unpack_result
from agentic_ray.interop.calls.worker import Done, Initializer, RunCalls
from agentic_ray.runtime import Run, get_session
from agentic_ray.runtime.failures import PackedError, internal_error
from agentic_ray.watching import Watch, look_away, watches

_logger = logging.getLogger("agentic_ray")
_STOPPED = "the executor of this call was stopped"


class Receiver(Protocol):
    """Whoever waits for a call. All methods are called in the engine's thread."""

    def begin(self, index: int) -> bool:
        """Take in that the call is sent now; False if it is not wanted any more."""

    def succeed(self, index: int, value: Any) -> None:
        """Take in the result."""

    def fail(self, index: int, error: BaseException) -> None:
        """Take in the exception that the call ended with."""

    def drop(self, index: int) -> None:
        """Take in that the call was cancelled before it was sent."""


@dataclass(slots=True)
class Call:
    """A call that waits or is under way.

    ``chunk`` is the number of calls that it travels with; None: as their cost suggests. ``begun``
    says whether its receiver was told that it is sent. ``watches`` are those that look at the code
    that made the call.
    """

    function: Callable[..., Any]
    arguments: Packed
    receiver: Receiver
    index: int = 0
    chunk: int | None = None
    begun: bool = False
    watches: tuple[Watch, ...] = field(default_factory=watches)


@dataclass(slots=True)
class _Batch:
    calls: list[Call]
    kind: _Kind
    run: Run | None = None
    error: BaseException | None = None


@dataclass(slots=True)
class _Kind:
    """A function whose calls were sent: its codelet and how long a call takes."""

    codelet: Codelet
    pace: Pace = field(default_factory=Pace)
    fixed: Codelet = field(init=False)  # of calls whose number in a batch the caller chose

    def __post_init__(self) -> None:
        self.fixed = replace(self.codelet, pieces="")


class Engine:
    """The calls of one executor.

    Parameters
    ----------
    workers : int or None
        Most batches under way; None: as many as the session has slots.
    initializer, initargs
        Function that each process calls before the first call, and its arguments.
    has_effects : bool
        Whether calls run at most once: each travels alone, and none is run again.
    priority : int
    resources : Resources, optional
        Resources that each batch takes.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        has_effects: bool = False,
        priority: int = 0,
        resources: Resources | None = None,
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise InvalidTypeError(f"the initializer cannot be called: {initializer!r}")
        self.session = get_session()
        self._name = uuid.uuid4().hex[:12]
        self._initializer = None
        if initializer is not None:
            packed = pack_arguments(tuple(initargs), {})
            self._initializer = Initializer(self._name, capture(initializer), packed)
        self._workers = workers
        self._has_effects = has_effects
        self._priority = priority
        self._resources = resources
        self._context = contextvars.copy_context()
        self._changed = threading.Condition()
        self._queue: deque[Call] = deque()
        self._under_way: list[_Batch] = []
        self._finished: list[_Batch] = []
        self._kinds: dict[str, _Kind] = {}
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._broken: BrokenExecutorError | None = None
        self._stopped = False

    @property
    def workers(self) -> int:
        """Calls that run at once."""
        slots = max(self.session.slots, 1)
        return slots if self._workers is None else min(self._workers, slots)

    @property
    def broken(self) -> BrokenExecutorError | None:
        """Why no call can run, if the initializer raised."""
        return self._broken

    # --- for the caller ----------------------------------------------------------------

    def add(self, calls: Iterable[Call]) -> None:
        """Queue calls.

        Raises
        ------
        BrokenExecutorError
            The initializer raised.
        """
        with self._changed:
            if self._broken is not None:
                raise self._broken
            self._queue.extend(calls)
            if self._thread is None and self._queue:
                self._thread = threading.Thread(
                    target=self._context.copy().run, args=(self._serve,), name="agentic-ray-calls"
                )
                self._thread.start()
            self._changed.notify_all()

    def drop_pending(self) -> None:
        """Cancel the calls that were not sent."""
        with self._changed:
            dropped, self._queue = list(self._queue), deque()
            self._changed.notify_all()
        for call in dropped:
            _drop(call)

    def stop(self) -> None:
        """Cancel all calls, for good: those under way end with JobCancelledError."""
        self.drop_pending()
        with self._changed:
            self._stopped = True
            runs = [batch.run for batch in self._under_way if batch.run is not None]
        for run in runs:
            run.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no call is left; False if that takes longer than ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, timeout)

    # --- the thread --------------------------------------------------------------------

    def _serve(self) -> None:
        look_away()  # at whoever made the executor; each call is seen by those who look at it
        try:
            self._serve_all()
        except BaseException as error:  # nobody may wait for ever because of a fault in here
            failure = internal_error("serving the calls of an executor", error)
            with self._changed:
                self._thread = None
                left = [call for batch in self._under_way for call in batch.calls] + [*self._queue]
                self._queue.clear()
                self._under_way.clear()
                self._finished.clear()
                self._changed.notify_all()
            for call in left:
                _fail(call, failure)

    def _serve_all(self) -> None:
        while True:
            with self._changed:
                while True:
                    finished, self._finished = self._finished, []
                    batches = self._cut()
                    if finished or batches:
                        break
                    if not self._queue and not self._under_way:
                        self._thread = None
                        self._changed.notify_all()
                        return
                    self._changed.wait()
            # The next batches first: workers need not wait while results are handed out.
            for batch in batches:
                self._send(batch)
            for batch in finished:
                self._settle(batch)

    def _cut(self) -> list[_Batch]:
        """Take the calls that can be sent now from the queue. (The lock is held.)"""
        batches = []
        workers = self.workers
        # A batch is sent ahead for each worker, unless the number of workers is the caller's.
        limit = workers if self._workers is not None else 2 * workers
        while self._queue and len(self._under_way) < limit:
            batch = self._next()
            if batch is None:
                continue
            self._under_way.append(batch)
            batches.append(batch)
        return batches

    def _next(self) -> _Batch | None:
        """Take one batch from the queue: calls of one function that follow each other."""
        first = self._queue[0]
        try:
            kind = self._kind(first.function)
        except Exception as error:  # the function cannot be named: unpickling it failed
            _fail(self._queue.popleft(), error)
            return None
        size = 1
        if first.chunk is not None:
            size = first.chunk
        elif kind.pace.seconds is not None:
            target = self.session.bundle_seconds(kind.pace.seconds * len(self._queue))
            size = kind.pace.size(len(self._queue), target)
        if self._has_effects:
            size = 1
        calls: list[Call] = []
        while self._queue and len(calls) < size:
            call = self._queue[0]
            if calls and (call.function is not first.function or call.chunk != first.chunk):
                break
            self._queue.popleft()
            if call.begun or call.receiver.begin(call.index):
                call.begun = True
                calls.append(call)
        return _Batch(calls, kind) if calls else None

    def _kind(self, function: Callable[..., Any]) -> _Kind:
        name = content_key(f"call[{name_of(function).rpartition('.')[2]}]", function)[:-20]
        found = self._kinds.get(name)
        if found is None:
            codelet = Codelet(
                name,
                RunCalls(function, self._initializer),
                opaque=True,
                has_effects=self._has_effects,
                pieces="" if self._has_effects else "list",
            )
            found = self._kinds[name] = _Kind(codelet)
        return found

    def _send(self, batch: _Batch) -> None:
        calls = batch.calls
        codelet = batch.kind.codelet
        patience = batch.kind.pace.patience_seconds(len(calls))
        if calls[0].chunk is not None:
            codelet = batch.kind.fixed
            patience = math.inf  # the caller wants them to travel together
        try:
            if self._stopped:
                raise JobCancelledError(_STOPPED)
            task = Task.of(
                codelet,
                [call.arguments for call in calls],
                patience,
                key=f"{codelet.name}/{next(self._numbers)}",
                resources=self._resources,
                cost=CostHint(items=len(calls)),
            )
            batch.run = self.session.submit(
                TaskGraph([task], [task.key]), priority=self._priority, target_seconds=0.0
            )
        except BaseException as error:  # told to whoever waits for these calls
            batch.error = error
            self._over(batch)
            return
        for watch in dict.fromkeys(itertools.chain.from_iterable(c.watches for c in calls)):
            watch.sees(batch.run)
        batch.run.on_done(lambda: self._over(batch))
        if self._stopped:  # just now, by somebody who did not see the run
            batch.run.cancel()

    def _over(self, batch: _Batch) -> None:
        with self._changed:
            self._finished.append(batch)
            self._changed.notify_all()

    def _settle(self, batch: _Batch) -> None:
        """Tell receivers the outcomes; put calls back that have none."""
        done: Done | None = None
        error = batch.error
        if batch.run is not None:
            try:
                (done,) = batch.run.result()
            except BaseException as raised:  # told to whoever waits for these calls
                error = raised
            batch.run.write_printed()
        again: Sequence[Call]
        if done is not None:
            again = self._hand_out(batch, done)
        else:
            assert error is not None
            again = self._after_failure(batch.calls, error)
        with self._changed:
            self._under_way.remove(batch)
            if not self._stopped:
                self._queue.extendleft(reversed(again))
                again = ()
            self._changed.notify_all()
        for call in again:
            _fail(call, JobCancelledError(_STOPPED))

    def _hand_out(self, batch: _Batch, done: Done) -> Sequence[Call]:
        if done.refused is not None:
            self._break(batch.calls, done.refused)
            return ()
        batch.kind.pace.learn(len(done.outcomes), done.seconds)
        for call, outcome in zip(batch.calls, done.outcomes, strict=False):
            if isinstance(outcome, PackedError):
                _fail(call, outcome.rebuild())
                continue
            try:
                value = unpack_result(outcome)
            except BaseException as error:  # of the result's own hooks
                _fail(call, error)
                continue
            _tell(call.receiver.succeed, call.index, value)
        return batch.calls[len(done.outcomes) :]

    def _after_failure(self, calls: list[Call], error: BaseException) -> Sequence[Call]:
        """Fail the call that is to blame; return the others, to be sent again."""
        if isinstance(error, PoisonTaskError | InterruptedJobError):
            guilty = getattr(error, "element_index", None)
            if len(calls) == 1:
                guilty = 0
            if guilty is not None and 0 <= guilty < len(calls):
                _fail(calls[guilty], _broken_by(error))
                return [*calls[:guilty], *calls[guilty + 1 :]]
        if len(calls) == 1 or isinstance(error, SessionError | JobCancelledError):
            for call in calls:
                _fail(call, error)
            return ()
        for call in calls:
            call.chunk = 1  # each alone: the others go on without the one to blame
        return calls

    def _break(self, calls: Sequence[Call], refused: PackedError) -> None:
        cause = refused.rebuild()
        broken = BrokenExecutorError(
            f"the initializer raised {type(cause).__name__}: {cause}; no call can run"
        )
        broken.__cause__ = cause
        with self._changed:
            self._broken = broken
            waiting, self._queue = list(self._queue), deque()
        for call in (*calls, *waiting):
            _fail(call, broken)


def _broken_by(error: BaseException) -> BrokenExecutorError:
    failure = BrokenExecutorError(str(error))
    failure.__cause__ = error
    return failure


def _fail(call: Call, error: BaseException) -> None:
    if not call.begun and not call.receiver.begin(call.index):
        return
    call.begun = True
    _tell(call.receiver.fail, call.index, error)


def _drop(call: Call) -> None:
    if call.begun:
        _tell(call.receiver.fail, call.index, JobCancelledError(_STOPPED))
    else:
        call.receiver.drop(call.index)


def _tell(tell: Callable[[int, Any], None], index: int, what: Any) -> None:
    try:
        tell(index, what)
    except Exception:  # a callback of the user's raised; the other calls go on
        _logger.exception("what was to be called with the result of a call raised")
