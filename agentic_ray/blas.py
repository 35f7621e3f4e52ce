"""Makes arrays use BLAS safely in any process: one thread at a time, and never during a fork.

A product that BLAS shares out among several threads has other bits than a product made in one
thread. So BLAS has one thread while an array step runs, wherever it runs; afterwards the process
has its threads back. Parallelism comes from several blocks at once.

OpenBLAS ends its threads before the process forks (it asks for that by ``pthread_atfork``); a call
that another thread is in then never returns, or returns with other bits. Forks are made by
`os.fork`, by `multiprocessing` by default on Linux, and by a `subprocess.Popen` with
``preexec_fn``, with which Ray starts the processes of a node; a fork by C code is not seen here. So
a fork waits until no array is being computed.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from threadpoolctl import ThreadpoolController

LONGEST_WAIT_SECONDS = 30.0
"""Most seconds that a thread waits for another, which may itself be waiting for the first."""


# --- threads of BLAS ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Library:
    """A loaded BLAS, and how many threads it uses for the whole process."""

    get_threads: Callable[[], int]
    set_threads: Callable[[int], object]


def loaded() -> list[Library]:
    """Return each BLAS library of this process."""
    return [
        _bound(found) or Library(found.get_num_threads, found.set_num_threads)
        for found in ThreadpoolController().lib_controllers
        if found.user_api == "blas"
    ]


def _bound(found: object) -> Library | None:
    """Return an OpenBLAS by its own two functions: threadpoolctl's take 6 µs a pair, and do nothing
    in any thread but the first one that called them."""
    info = found.info()  # type: ignore[attr-defined]
    if info["internal_api"] != "openblas":
        return None
    library = ctypes.CDLL(info["filepath"])
    for prefix in ("", "scipy_"):
        for suffix in ("", "64_", "_64"):
            get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None)
            put = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
            if get is not None and put is not None:
                put.argtypes, put.restype = [ctypes.c_int], None
                return Library(get, put)
    return None


_BRINGS_ANOTHER = "scipy.linalg"
"""SciPy's wheels bring a BLAS of their own, which users' functions may call."""


class _Depth(threading.local):
    """Number of contexts that a thread has entered and not left."""

    value = 0


class OneThread:
    """Context in which BLAS uses one thread, the calling one; any thread may enter.

    May be nested. When no thread is inside any more, BLAS has as many threads as before.
    """

    def __init__(self) -> None:
        self._depth = _Depth()
        self._libraries: list[Library] = []
        self._looked: bool | None = None
        self._before: list[tuple[Library, int]] = []
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        if not self._depth.value:
            with self._lock:
                if not self._inside:
                    self._limit()
                self._inside += 1
        self._depth.value += 1

    def __exit__(self, *_: object) -> None:
        self._depth.value -= 1
        if not self._depth.value:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._restore()

    def in_child(self) -> None:
        """Reset the state in a forked child, which has only the thread that forked."""
        self._reset()
        self._inside = int(self._depth.value > 0)
        if not self._inside:
            self._restore()

    def _limit(self) -> None:
        another = _BRINGS_ANOTHER in sys.modules
        if another is not self._looked:
            self._libraries, self._looked = loaded(), another
        for library in self._libraries:
            threads = library.get_threads()
            if threads != 1:
                library.set_threads(1)
                self._before.append((library, threads))

    def _restore(self) -> None:
        while self._before:
            library, threads = self._before.pop()
            library.set_threads(threads)


one_thread = OneThread()
"""The `OneThread` of this process."""


# --- computing and forking ---------------------------------------------------------------


class _Own(_Depth):
    """State of a thread in a `Gate`; also whether it waited to fork."""

    waited = False


class Gate:
    """Context in which any number of threads compute; a thread that forks gets in between them.

    May be nested; a fork by a thread that is inside does not wait.
    """

    def __init__(self) -> None:
        self._own = _Own()
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._waiting = 0
        self._forks = False

    def __enter__(self) -> None:
        own = self._own
        if not own.value:
            with self._changed:
                if self._forks:
                    self._wait(lambda: not self._forks)
                self._inside += 1
        own.value += 1

    def __exit__(self, *_: object) -> None:
        own = self._own
        own.value -= 1
        if not own.value:
            with self._changed:
                self._inside -= 1
                if self._waiting:
                    self._changed.notify_all()

    def before_fork(self) -> None:
        self._own.waited = not self._own.value
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
        """Reset the state in a forked child, which has only the thread that forked."""
        self._reset()
        self._inside = int(not self._own.waited)

    def _wait(self, is_so: Callable[[], bool]) -> None:
        self._waiting += 1
        self._changed.wait_for(is_so, LONGEST_WAIT_SECONDS)
        self._waiting -= 1


computing = Gate()
"""The `Gate` of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=computing.before_fork,
        after_in_parent=computing.after_fork,
        after_in_child=computing.in_child,
    )
    os.register_at_fork(after_in_child=one_thread.in_child)
