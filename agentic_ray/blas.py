"""What keeps BLAS of this process from hanging, and its results from depending on the moment.

OpenBLAS ends its threads before the process forks (it asks for that by ``pthread_atfork``); what
another thread is in the middle of then never returns, or returns with other bits. A fork is
`os.fork`, `multiprocessing` by default on Linux, and a `subprocess.Popen` with ``preexec_fn``, by
which Ray starts the processes of a node; one of C code's own is not seen here. So a fork waits
until no array is being computed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

LONGEST_WAIT_SECONDS = 30.0
"""Nobody waits longer for another: that one may itself be waiting for whom it keeps out."""


class Gate:
    """A context in which any number of threads compute; between them, one that forks.

    May be nested; a fork by a thread that is inside does not wait.
    """

    def __init__(self) -> None:
        self._own = threading.local()
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._forks = False

    def __enter__(self) -> None:
        depth = getattr(self._own, "depth", 0)
        if not depth:
            with self._changed:
                self._wait(lambda: not self._forks)
                self._inside += 1
        self._own.depth = depth + 1

    def __exit__(self, *_: object) -> None:
        self._own.depth -= 1
        if not self._own.depth:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def before_fork(self) -> None:
        self._own.waited = not getattr(self._own, "depth", 0)
        if self._own.waited:
            with self._changed:
                self._wait(lambda: not self._forks)
                self._forks = True
                self._wait(lambda: not self._inside)

    def after_fork(self) -> None:
        if self._own.waited:
            with self._changed:
                self._forks = False
                self._changed.notify_all()

    def in_child(self) -> None:
        """Only the thread that forked is there."""
        self._reset()
        self._inside = int(not self._own.waited)

    def _wait(self, is_so: Callable[[], bool]) -> None:
        self._changed.wait_for(is_so, LONGEST_WAIT_SECONDS)


computing = Gate()
"""The one of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=computing.before_fork,
        after_in_parent=computing.after_fork,
        after_in_child=computing.in_child,
    )
