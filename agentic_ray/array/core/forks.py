"""A fork of this process waits until no array is being computed here.

OpenBLAS ends its threads before the process forks (it asks for that by ``pthread_atfork``). A
product or factorization that another thread is in the middle of then never returns, or returns
with other bits. A fork is `os.fork`, `multiprocessing` by default on Linux, and a
`subprocess.Popen` with ``preexec_fn``, by which Ray starts the processes of a node; one of C
code's own is not seen here.
"""

from __future__ import annotations

import os
import threading
import time

LONGEST_WAIT_SECONDS = 30.0
"""A fork goes ahead after this: what is computed may itself be waiting for the fork."""


class ForkGate:
    """A context in which arrays are computed, by any number of threads, and nobody else forks.

    May be nested; a fork by a thread that is inside does not wait.
    """

    def __init__(self) -> None:
        self._own = threading.local()
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._forking: int | None = None

    def __enter__(self) -> None:
        depth = getattr(self._own, "depth", 0)
        if not depth:
            with self._changed:
                while self._forking is not None:
                    self._changed.wait()
                self._inside += 1
        self._own.depth = depth + 1

    def __exit__(self, *_: object) -> None:
        self._own.depth -= 1
        if not self._own.depth:
            with self._changed:
                self._inside -= 1
                if self._forking is not None:
                    self._changed.notify_all()

    def before_fork(self) -> None:
        if getattr(self._own, "depth", 0):
            return
        deadline = time.monotonic() + LONGEST_WAIT_SECONDS
        with self._changed:
            while self._forking is not None:
                self._changed.wait()
            self._forking = threading.get_ident()
            while self._inside and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def after_fork(self) -> None:
        with self._changed:
            if self._forking == threading.get_ident():
                self._forking = None
                self._changed.notify_all()

    def in_child(self) -> None:
        """Only the thread that forked is there."""
        depth = getattr(self._own, "depth", 0)
        self._reset()
        self._inside = 1 if depth else 0


computing = ForkGate()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=computing.before_fork,
        after_in_parent=computing.after_fork,
        after_in_child=computing.in_child,
    )
