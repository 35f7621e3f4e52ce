"""`Reader`: reads large bodies in a process of its own, so that reading them stops nobody else."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Final

from agentic_ray.service.bodies import RequestError, Submission, read_submission

SMALL_BYTES: Final = 64 << 10
"""A body up to this size is read where it came in: to send it elsewhere would take longer."""

_BODIES_OF_ONE_PROCESS: Final = 200


class Reader:
    """Reads bodies; safe to use from any thread. Its process is started by the first large one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def read(self, body: bytes) -> Submission:
        """As `read_submission`.

        Raises
        ------
        RequestError
            As there. 503: the process ended while it read this body, twice.
        """
        if len(body) <= SMALL_BYTES:
            return read_submission(body)
        for _ in range(2):
            pool = self._started()
            try:
                found: Future[Submission | tuple[int, str, str]] = pool.submit(_read, body)
                read = found.result()
            except BrokenProcessPool:
                self._forget(pool)
                continue
            if isinstance(read, tuple):
                raise RequestError(*read)
            return read
        raise RequestError(503, "the body could not be read: its reader has died", "ReaderDied")

    def close(self) -> None:
        """End the process."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    1,
                    mp_context=multiprocessing.get_context("spawn"),
                    initializer=_begin,
                    max_tasks_per_child=_BODIES_OF_ONE_PROCESS,
                )
            return self._pool

    def _forget(self, pool: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is pool:
                self._pool = None
        pool.shutdown(wait=False)


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
    with contextlib.suppress(OSError):
        os.nice(5)  # who asks for a status goes first


def _read(body: bytes) -> Submission | tuple[int, str, str]:
    try:
        return read_submission(body)
    except RequestError as refused:
        return refused.status, str(refused), refused.kind
