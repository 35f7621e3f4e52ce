"""What keeps BLAS of this process from hanging, and its results from depending on the moment.

Two things change the bits of a product or a factorization although its inputs are the same:

* A fork. OpenBLAS ends its threads before the process forks (it asks for that by
  ``pthread_atfork``); what another thread is in the middle of then never returns, or returns with
  other bits. A fork is `os.fork`, `multiprocessing` by default on Linux, and a `subprocess.Popen`
  with ``preexec_fn``, by which Ray starts the processes of a node; one of C code's own is not seen
  here. So a fork waits until no array is being computed.
* How many threads BLAS has: on an executor one, in the caller's process as many as cores. So what
  may run in either place has one thread in both (`one_thread`).
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController

LONGEST_WAIT_SECONDS = 30.0
"""Nobody waits longer for another: that one may itself be waiting for whom it keeps out."""


class Gate:
    """A context in which any number of threads compute; between them, one that is to be alone.

    May be nested; a fork by a thread that is inside, or alone, does not wait.
    """

    def __init__(self) -> None:
        self._own = threading.local()
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._alone: int | None = None

    def __enter__(self) -> None:
        depth = getattr(self._own, "depth", 0)
        if not depth:
            me = threading.get_ident()
            with self._changed:
                if self._alone is not None and self._alone != me:
                    self._wait(lambda: self._alone is None)
                self._inside += 1
        self._own.depth = depth + 1

    def __exit__(self, *_: object) -> None:
        self._own.depth -= 1
        if not self._own.depth:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Inside, all others are kept out; not if it gives False: then somebody was in already."""
        with self._changed:
            free = not self._inside and self._alone is None
            if free:
                self._alone = threading.get_ident()
        try:
            yield free
        finally:
            if free:
                self._leave()

    def before_fork(self) -> None:
        me = threading.get_ident()
        self._own.forking = not getattr(self._own, "depth", 0) and self._alone != me
        if self._own.forking:
            with self._changed:
                self._wait(lambda: self._alone is None)
                self._alone = me
                self._wait(lambda: not self._inside)

    def after_fork(self) -> None:
        if self._own.forking:
            self._leave()

    def in_child(self) -> None:
        """Only the thread that forked is there."""
        forking = self._own.forking
        alone = None if forking else self._alone
        self._reset()
        self._inside = int(getattr(self._own, "depth", 0) > 0)
        self._alone = alone if alone == threading.get_ident() else None

    def _leave(self) -> None:
        with self._changed:
            self._alone = None
            self._changed.notify_all()

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


@contextmanager
def one_thread() -> Iterator[bool]:
    """Inside, BLAS and OpenMP have as many threads as on an executor; not if it gives False.

    That is for the main thread while no array is computed here: how many threads there are is a
    matter of the whole process, and another thread's results are not to depend on it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    with computing.alone() as free:
        # What the user has set holds in both places.
        if not free or any(name.endswith("_NUM_THREADS") for name in os.environ):
            yield free
        else:
            with _libraries(len(sys.modules)).limit(limits=1):
                yield True


@functools.lru_cache(maxsize=1)
def _libraries(modules: int) -> ThreadpoolController:
    """Those loaded by now: to look for them takes a while, and they come with modules."""
    return ThreadpoolController()
