"""`Pool`: the calls of `multiprocessing.pool.Pool` over the worker processes of a cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from agentic_ray.errors import (
    InvalidArgumentError,
    PoolClosedError,
    PoolTimeoutError,
    SessionError,
)
from agentic_ray.graph import Resources, capture
from agentic_ray.interop.calls.engine import Call, Engine
from agentic_ray.interop.calls.gathered import WINDOW, Gathered
from agentic_ray.interop.calls.parcels import pack_arguments

Callback = Callable[[Any], object]


class PoolResult:
    """Result of an asynchronous call, as `multiprocessing.pool.AsyncResult`."""

    def __init__(self, callback: Callback | None, error_callback: Callback | None) -> None:
        self._callback = callback
        self._error_callback = error_callback
        self._over = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None

    def get(self, timeout: float | None = None) -> Any:
        """Return the value, or raise the function's exception.

        Raises
        ------
        PoolTimeoutError
            It is not there after ``timeout`` seconds.
        """
        self.wait(timeout)
        if not self._over.is_set():
            raise PoolTimeoutError(f"the result was not there after {timeout} seconds")
        if self._error is not None:
            raise self._error
        return self._value

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is there, or ``timeout`` seconds have passed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._over.is_set():
            left = 0.2 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return
            self._over.wait(min(left, 0.2))  # short, so that the main thread notices Ctrl-C

    def ready(self) -> bool:
        """Whether the call has ended."""
        return self._over.is_set()

    def successful(self) -> bool:
        """Whether it ended without an exception.

        Raises
        ------
        InvalidArgumentError
            It has not ended.
        """
        if not self._over.is_set():
            raise InvalidArgumentError("the result is not ready")
        return self._error is None

    def _settle(self, value: Any, error: BaseException | None) -> None:
        self._value, self._error = value, error
        try:
            told, what = (self._callback, value) if error is None else (self._error_callback, error)
            if told is not None:
                told(what)
        finally:
            self._over.set()

    # The methods of `Receiver`, for the result of a single call; a map uses `Gathered` for its own.

    def begin(self, index: int) -> bool:
        """Take in that the call is sent."""
        return True

    def succeed(self, index: int, value: Any) -> None:
        """Take in the value."""
        self._settle(value, None)

    def fail(self, index: int, error: BaseException) -> None:
        """Take in the exception."""
        self._settle(None, error)

    def drop(self, index: int) -> None:
        """Take in that the pool was terminated."""
        self._settle(None, SessionError("the pool was terminated"))


class Pool:
    """Pool of `multiprocessing` whose functions run in the worker processes of the cluster.

    Deaths of processes, batches and ``has_effects`` are as for `agentic_ray.Executor`. As a context
    manager it is terminated at the end of the block, as `multiprocessing.Pool` is.

    Parameters
    ----------
    processes : int, optional
        Most calls under way; default: as many as the session has slots.
    initializer : callable, optional
        Called in each worker process before its first call for this pool.
    initargs : tuple
    has_effects : bool
        Whether each call runs at most once.
    resources : Resources, optional
        Resources that each call takes, and the nodes that may run it.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> with ar.Pool() as pool:
    ...     pool.map(abs, [-1, 2]), pool.starmap(pow, [(2, 3), (3, 2)]), pool.apply(len, ["abc"])
    ([1, 2], [8, 9], 3)
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        has_effects: bool = False,
        resources: Resources | None = None,
    ) -> None:
        if processes is not None and processes < 1:
            raise InvalidArgumentError(f"processes must be at least 1, not {processes}")
        self._engine = Engine(
            workers=processes,
            initializer=initializer,
            initargs=initargs,
            has_effects=has_effects,
            resources=resources,
        )
        self._closed = False

    def apply(
        self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}
    ) -> Any:
        """Return ``func(*args, **kwds)``."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> PoolResult:
        """Call ``func(*args, **kwds)``; return at once. The callbacks are called in a thread with
        the value, or the exception, before it can be got."""
        self._check_open()
        result = PoolResult(callback, error_callback)
        packed = pack_arguments(tuple(args), kwds)
        self._engine.add([Call(capture(func), packed, result)])
        return result

    def map(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """Return the list of ``func(element)``."""
        return list(self.map_async(func, iterable, chunksize).get())

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> PoolResult:
        """Start `map`; return at once. The callbacks are called once, with the whole list or the
        exception."""
        elements = ((element,) for element in iterable)
        return self._mapped(func, elements, chunksize, callback, error_callback)

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[Any]:
        """Return the list of ``func(*element)``."""
        return list(self.starmap_async(func, iterable, chunksize).get())

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> PoolResult:
        """Start `starmap`; return at once, as `map_async` does."""
        elements = (tuple(element) for element in iterable)
        return self._mapped(func, elements, chunksize, callback, error_callback)

    def imap(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> PoolIterator:
        """Return an iterator of ``func(element)``, in order, which reads ``iterable`` as results
        are taken, some thousands of elements ahead. After an exception it goes on."""
        return self._iterated(func, iterable, chunksize, ordered=True)

    def imap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> PoolIterator:
        """Return an iterator of ``func(element)`` as `imap` does, in the order in which they
        end."""
        return self._iterated(func, iterable, chunksize, ordered=False)

    def close(self) -> None:
        """Take no more calls."""
        self._closed = True

    def terminate(self) -> None:
        """Take no more calls, and cancel all that have not ended: they raise JobCancelledError."""
        self._closed = True
        self._engine.stop()

    def join(self) -> None:
        """Wait until all calls have ended.

        Raises
        ------
        InvalidArgumentError
            Neither `close` nor `terminate` was called.
        """
        if not self._closed:
            raise InvalidArgumentError("Pool is still running")
        self._engine.wait()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.terminate()

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosedError("Pool not running")

    def _mapped(
        self,
        func: Callable[..., Any],
        arguments: Iterable[tuple[Any, ...]],
        chunksize: int | None,
        callback: Callback | None,
        error_callback: Callback | None,
    ) -> PoolResult:
        self._check_open()
        chunk = _checked(chunksize)
        result = PoolResult(callback, error_callback)
        everything = list(arguments)
        if not everything:
            result._settle([], None)
            return result
        made: list[Gathered] = []
        ready = threading.Event()

        def end() -> None:
            ready.wait()  # (the first results may come before `made` is filled)
            try:
                value = made[0].values()
            except BaseException as error:
                result._settle(None, error)
            else:
                result._settle(value, None)

        made.append(Gathered(self._engine, capture(func), everything, chunk, on_end=end))
        ready.set()
        return result

    def _iterated(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        *,
        ordered: bool,
    ) -> PoolIterator:
        self._check_open()
        elements = ((element,) for element in iterable)
        gathered = Gathered(self._engine, capture(func), elements, _checked(chunksize), WINDOW)
        return PoolIterator(gathered, ordered=ordered)


class PoolIterator:
    """Iterator over results of a pool, as `multiprocessing.pool.IMapIterator`."""

    def __init__(self, gathered: Gathered, *, ordered: bool) -> None:
        self._gathered = gathered
        self._ordered = ordered

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result, or raise its exception.

        Raises
        ------
        StopIteration
            There is none.
        PoolTimeoutError
            It is not there after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            done, value = self._gathered.next(deadline, ordered=self._ordered)
        except TimeoutError:
            raise PoolTimeoutError(f"no result was there after {timeout} seconds") from None
        if not done:
            raise value
        return value


def _checked(chunksize: int | None) -> int | None:
    if chunksize is not None and chunksize < 1:
        raise InvalidArgumentError(f"chunksize must be at least 1, not {chunksize}")
    return chunksize
