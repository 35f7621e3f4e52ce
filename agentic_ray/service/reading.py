"""`Reader`: does what could take long, or crash, in a process of its own: reading what came in.

Two of them are used: one for large bodies (`read_body`), one for uploaded files.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final, TypeVar

from agentic_ray.service.bodies import RequestError, Submission, read_submission

SMALL_BYTES: Final = 64 << 10
"""A body up to this size is read where it came in: to send it elsewhere would take longer."""

_T = TypeVar("_T")
_USES_OF_ONE_PROCESS: Final = 200
_SECONDS: Final = 60.0


class Reader:
    """A process that is started when it is first needed, and anew when it has died.

    Safe to use from any thread; one call at a time runs, others wait.
    """

    def __init__(self, seconds: float = _SECONDS, start_seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        self._start_seconds = start_seconds
        self._turn = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._pid = 0
        self._uses = 0

    @property
    def pid(self) -> int:
        """The number of the process; 0 if there is none."""
        return self._pid

    def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call the function that has this name there, and return its answer.

        Raises
        ------
        RequestError
            As the function. 422: the process died of it, or it took too long.
        """
        with self._turn:
            pool = self._started()
            self._uses += 1
            try:
                done, value = pool.submit(_done, function, arguments).result(self._seconds)
            except TimeoutError:
                self._end()
                raise RequestError(
                    422, f"it could not be read within {self._seconds:g} seconds", "Unreadable"
                ) from None
            except BrokenProcessPool:
                self._end()
                raise RequestError(
                    422, "the process that was to read it has died of it", "Unreadable"
                ) from None
        if not done:
            raise RequestError(*value)
        found: _T = value
        return found

    def close(self) -> None:
        """End the process."""
        with self._turn:
            self._end()

    def _started(self) -> ProcessPoolExecutor:
        if self._uses >= _USES_OF_ONE_PROCESS:
            self._end()  # what its allocator keeps of large bodies goes with it
        for _ in range(2):
            try:
                if self._pool is None:
                    context = multiprocessing.get_context("spawn")
                    self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin)
                self._pid = self._pool.submit(os.getpid).result(self._start_seconds)
                return self._pool
            except (BrokenProcessPool, TimeoutError):  # it died meanwhile, or does not begin
                self._end()
        raise RequestError(503, "no process that reads could be started", "ReaderDied")

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        # (One that has not begun has told no number: the pool alone knows it.)
        for number in {self._pid, *(pool._processes or ())} - {0}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        pool.shutdown(wait=False, cancel_futures=True)
        self._pid, self._uses = 0, 0


def read_body(reader: Reader, body: bytes, builtin: frozenset[str] = frozenset()) -> Submission:
    """As `read_submission`; a large body is read apart."""
    if len(body) <= SMALL_BYTES:
        return read_submission(body, builtin)
    return reader.call(read_submission, body, builtin)


def _begin() -> None:
    """In the process: it ends when the service does, not by the signals that are meant for that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()
    gc.disable()  # JSON has no cycles and many parts; no process is used for long
    with contextlib.suppress(OSError):
        os.nice(5)  # who asks for a status goes first


def _done(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    try:
        return True, function(*arguments)
    except RequestError as refused:
        return False, (refused.status, str(refused), refused.kind)
