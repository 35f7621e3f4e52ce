"""`Executor`: `concurrent.futures.Executor` over the worker processes of a cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as BaseExecutor
from concurrent.futures import Future
from typing import Any

from agentic_ray.errors import (
    BrokenExecutorError,
    InvalidArgumentError,
    InvalidTypeError,
    JobTimeoutError,
    SessionError,
)
from agentic_ray.graph import Resources, capture
from agentic_ray.interop.calls.engine import Call, Engine
from agentic_ray.interop.calls.gathered import Gathered
from agentic_ray.interop.calls.parcels import pack_arguments


class FutureReceiver:
    """Receiver that settles a future."""

    __slots__ = ("_future",)

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def begin(self, index: int) -> bool:
        return self._future.set_running_or_notify_cancel()

    def succeed(self, index: int, value: Any) -> None:
        self._future.set_result(value)

    def fail(self, index: int, error: BaseException) -> None:
        self._future.set_exception(error)

    def drop(self, index: int) -> None:
        self._future.cancel()
        self._future.set_running_or_notify_cancel()


class Executor(BaseExecutor):
    """Executor of `concurrent.futures` whose calls run in the worker processes of the cluster.

    It takes the place of `concurrent.futures.ProcessPoolExecutor`, also in
    `asyncio.loop.run_in_executor`. Functions of a notebook, closures and lambdas can be sent.
    Arguments are taken as they are when a call is submitted. Calls that turn out short travel
    together; `map` over many of them costs microseconds each. A call in such a batch is marked as
    running, and cannot be cancelled, when the batch is sent.

    A process that dies costs only its calls: they are run again, and only a call that ends every
    process it runs in fails, with BrokenExecutorError; the executor goes on. With ``has_effects``
    no call is ever run again: each travels alone, and fails with BrokenExecutorError if its process
    died.

    Parameters
    ----------
    max_workers : int, optional
        Most calls under way; default: as many as the session has slots.
    initializer : callable, optional
        Called in each worker process before its first call for this executor. If it raises, all
        calls fail with BrokenExecutorError.
    initargs : tuple
    batch : bool
        False: each call travels alone, as calls do that wait for each other.
    has_effects : bool
        Whether each call runs at most once.
    priority : int
        Calls of higher priority go first.
    resources : Resources, optional
        Resources that each call takes, and the nodes that may run it.

    Raises
    ------
    InvalidArgumentError, InvalidTypeError
        An argument cannot be used.
    SerializationError
        The initializer or its arguments cannot be pickled.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> with ar.Executor() as executor:
    ...     list(executor.map(pow, [2, 3], [5, 2])), executor.submit(pow, 2, 10).result()
    ([32, 9], 1024)
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        batch: bool = True,
        has_effects: bool = False,
        priority: int = 0,
        resources: Resources | None = None,
    ) -> None:
        if max_workers is not None and max_workers < 1:
            raise InvalidArgumentError(f"max_workers must be at least 1, not {max_workers}")
        self._engine = Engine(
            workers=max_workers,
            initializer=initializer,
            initargs=initargs,
            has_effects=has_effects,
            priority=priority,
            resources=resources,
        )
        self._chunk = None if batch else 1
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call ``fn(*args, **kwargs)`` in a worker process; return its future at once.

        A function or an argument that cannot be pickled gives a future that has failed.

        Raises
        ------
        SessionError
            The executor was shut down.
        BrokenExecutorError
            The initializer raised.
        """
        future: Future[Any] = Future()
        with self._lock:
            self._check_open()
            try:
                call = Call(
                    capture(fn),
                    pack_arguments(args, kwargs),
                    FutureReceiver(future),
                    chunk=self._chunk,
                )
            except Exception as error:
                future.set_running_or_notify_cancel()
                future.set_exception(error)
                return future
            self._engine.add([call])
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Call ``fn`` with the elements of the iterables; return an iterator of the results.

        Parameters
        ----------
        fn : callable
        *iterables
            Read at once, as far as ``buffersize`` allows; the shortest ends the map.
        timeout : float, optional
            Seconds from now on in which each result must be there.
        chunksize : int, optional
            Calls that travel together; default: as many as their measured cost suggests.
        buffersize : int, optional
            Most calls that are submitted and whose results have not been taken.

        Raises
        ------
        JobTimeoutError
            From the iterator: a result was not there in time; calls not begun are cancelled.
        InvalidArgumentError, InvalidTypeError, SerializationError
            An argument cannot be used or pickled.
        SessionError
            The executor was shut down.
        """
        if chunksize is not None and chunksize < 1:
            raise InvalidArgumentError("chunksize must be >= 1.")
        if buffersize is not None:
            if not isinstance(buffersize, int) or isinstance(buffersize, bool):
                raise InvalidTypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise InvalidArgumentError("buffersize must be None or > 0")
        deadline = None if timeout is None else timeout + time.monotonic()
        chunk = self._chunk if chunksize is None else chunksize
        with self._lock:
            self._check_open()
            gathered = Gathered(
                self._engine, capture(fn), zip(*iterables, strict=False), chunk, buffersize
            )
        return _results(gathered, deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls.

        Parameters
        ----------
        wait : bool
            Whether to return only when all calls have ended.
        cancel_futures : bool
            Whether to cancel the calls that are not sent yet.
        """
        with self._lock:
            self._closed = True
        if cancel_futures:
            self._engine.drop_pending()
        if wait:
            self._engine.wait()

    def _check_open(self) -> None:
        if self._closed:
            raise SessionError("cannot schedule new futures after shutdown")
        if self._engine.broken is not None:
            raise BrokenExecutorError(str(self._engine.broken)) from self._engine.broken.__cause__


def _results(gathered: Gathered, deadline: float | None) -> Iterator[Any]:
    try:
        while True:
            try:
                done, value = gathered.next(deadline)
            except StopIteration:
                return
            except TimeoutError:
                raise JobTimeoutError("a result was not there in the time given") from None
            if not done:
                raise value
            yield value
    finally:
        gathered.cancel()
