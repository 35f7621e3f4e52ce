"""The present stay of this process on a Ray cluster, and the ends of earlier stays.

Objects of a cluster (an ObjectRef, an actor) mean nothing to the next cluster that the process
joins. Each therefore remembers the stay it was made in, and is refused by name once that stay is
over. A process that was forked off one with Ray in it has no stay, and can have none.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agentic_ray.errors import SessionError

_numbers = itertools.count(1)
_LOOK_SECONDS = 0.2


@dataclass(slots=True, eq=False)
class Stay:
    """A stay of this process on one cluster.

    Attributes
    ----------
    session : str
        Name of the session that the stay belongs to.
    over : bool
        Whether it has ended: objects of this process in the cluster's stores are there no more.
    lost : bool
        Whether it ended because Ray died; the session goes on with another stay.
    settled : threading.Event
        Event that is set once the other stay has begun, or could not.
    sees_dead : callable
        Whether Ray is known to be dead, perhaps before its death is dealt with.
    """

    session: str
    sees_dead: Callable[[], bool] = lambda: False
    number: int = field(default_factory=lambda: next(_numbers))
    began_at: float = field(default_factory=time.time)
    ended_at: float | None = None
    lost: bool = False
    settled: threading.Event = field(default_factory=threading.Event)

    @property
    def over(self) -> bool:
        return self.ended_at is not None

    def end(self, *, lost: bool = False) -> None:
        """End the stay; the first call counts."""
        if self.ended_at is None:
            self.lost = lost
            self.ended_at = time.time()

    def __str__(self) -> str:
        began = _clock(self.began_at)
        if self.ended_at is None:
            return f"session {self.session} (begun at {began})"
        how = "whose Ray died" if self.lost else "which ended"
        return f"session {self.session} (begun at {began}), {how} at {_clock(self.ended_at)}"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


_current: Stay | None = None


def begin(session: str, sees_dead: Callable[[], bool]) -> Stay:
    """Begin a new stay, from now on the present one."""
    global _current
    _current = Stay(session, sees_dead)
    return _current


def current() -> Stay | None:
    """Return the newest stay, over or not; None where no session was begun in this process."""
    return _current


def await_ray() -> None:
    """Wait while Ray is started anew after its death; otherwise return at once.

    Call this before using anything of Ray that a dead Ray would not answer.

    Raises
    ------
    SessionError
        In a forked process.
    """
    check_process()
    stay = _current
    while stay is not None and not stay.settled.is_set():
        if not (stay.lost or (not stay.over and stay.sees_dead())):
            return
        stay.settled.wait(_LOOK_SECONDS)  # short waits, so that a main thread notices Ctrl-C


# --- forks -------------------------------------------------------------------------------

_forked_off: int | None = None
"""Process with Ray in it that this one was forked off."""
_forgetful: list[Callable[[], None]] = []
_inherited: list[Any] = []
"""Objects that must not be destroyed in a forked process: their destructors would wait for threads
that are not there, or would end things that belong to the parent. Parts of Ray's core are not
destroyed when the process ends either (`_keep_for_ever`, `_end_without_destructors`)."""


def is_forked() -> bool:
    """Whether this process was forked off one that had Ray in it."""
    return _forked_off is not None


def check_process() -> None:
    """Raise SessionError in a process that was forked off one that had Ray in it.

    The threads of Ray's core do not survive a fork, so a call to it hangs there; nor can the core
    be started a second time in one process.
    """
    if _forked_off is not None:
        raise SessionError(
            f"process {os.getpid()} was forked off process {_forked_off}, which uses Ray; a "
            "forked process cannot. Start processes by spawn or forkserver (for example "
            "multiprocessing.get_context('spawn')), or fork before agentic_ray.init() is called. "
            "Arrays of less than 32 MB that are not persisted are computed in a fork as well."
        )


def forget_when_forked(forget: Callable[[], None]) -> None:
    """Register ``forget`` to be called in processes that are forked off while Ray is in this
    one."""
    _forgetful.append(forget)


def _keep_for_ever(part: Any) -> None:
    """Count one reference to ``part`` too many, so that Python never destroys it."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(part))


def _end_without_destructors() -> None:
    """Make the process end, when Python is done and calls ``exit``, with its exit code but without
    the destructors of objects that libraries made before the fork.

    Among these are thread pools of Ray's core, whose destructors wait for ever for threads that do
    not exist after a fork. ``exit`` calls the registered functions in reverse order: those that
    this process registers later, then the C library's flush of its streams, then ``_exit``.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "on_exit"):  # only the GNU C library has it
        return
    for name in ("_exit", "fcloseall"):
        library.on_exit(ctypes.cast(getattr(library, name), ctypes.c_void_p), None)


def _in_child() -> None:
    """Take Ray out of a forked process, so that it can neither hang it nor end the parent's Ray.

    Runs in a process of one thread, perhaps only to be replaced by another program at once.
    """
    global _forked_off, _current
    worker_module: Any = sys.modules.get("ray._private.worker")
    if worker_module is None:
        return
    worker: Any = getattr(worker_module, "global_worker", None)
    node = getattr(worker_module, "_global_node", None)
    core = getattr(worker, "__dict__", {}).get("core_worker")
    if core is None and node is None and _current is None:
        return
    _forked_off = os.getppid()
    atexit.unregister(worker_module.shutdown)
    if node is not None:
        node.all_processes = {}  # processes that its own handler at exit would kill
        worker_module._global_node = None
    state: Any = getattr(sys.modules.get("ray._private.state"), "state", None)
    store: Any = sys.modules.get("ray.experimental.internal_kv")
    for part in (
        core,
        getattr(worker, "gcs_client", None),
        getattr(state, "_global_state_accessor", None),
        getattr(store, "global_gcs_client", None),
    ):
        _keep_for_ever(part)
    _end_without_destructors()
    if core is not None:
        del worker.core_worker
        worker.set_mode(None)
    _inherited.append((_current, node, core))
    _current = None
    for forget in _forgetful:
        forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
