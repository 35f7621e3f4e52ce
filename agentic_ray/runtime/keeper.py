"""The thread that an embedded Ray depends on, and its watch over the processes of that Ray.

When the raylet or the GCS of an embedded Ray dies, every call to Ray blocks for ever, or ends this
process (whatever touches the object store then does, and whatever the GCS has not answered after a
minute). So the watch is by the kernel, not by asking Ray, and whoever is told has to be quick.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ray._private import worker as ray_worker

_logger = logging.getLogger("agentic_ray")
_POLL_SECONDS = 0.25
"""Where the kernel does not tell of the end of a process."""
_WATCHED = ("raylet", "gcs_server")


class Keeper:
    """Starts Ray, and tells when what it has started dies.

    Parameters
    ----------
    connect : callable
        Joins or starts Ray; True if it was started. Called in a thread that lasts: the kernel
        kills Ray's processes when the *thread* that started them ends (their parent-death signal),
        so a thread of the caller's, such as a job's, must not be the one.
    on_death : callable
        Told in words which process has died. Called in this keeper's thread, and free to call
        ``connect`` there; gives whether there is a new Ray to be watched.
    """

    def __init__(self, connect: Callable[[], bool], on_death: Callable[[str], bool]) -> None:
        self._connect = connect
        self._on_death = on_death
        self._may_watch = threading.Event()
        self._closed = False
        outcome: Future[bool] = Future()
        if threading.current_thread() is threading.main_thread():
            outcome.set_result(connect())  # it lasts, and only it may set Ray's signal handlers
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(
            target=self._main, args=(outcome,), name="agentic-ray-keeper", daemon=True
        )
        self._thread.start()
        self.started = outcome.result()

    def watch(self) -> None:
        """From now on tell of deaths."""
        self._may_watch.set()

    def close(self) -> None:
        """End the thread, and with it what it has started."""
        self._closed = True
        self._may_watch.set()
        os.write(self._waker, b"\0")

    def _main(self, outcome: Future[bool]) -> None:
        if not outcome.done():
            try:
                outcome.set_result(self._connect())
            except BaseException as error:  # raised again in the caller
                outcome.set_exception(error)
                self._closed = True
        self._may_watch.wait(0 if self._closed else None)
        try:
            while not self._closed and outcome.result():
                died = self._await_death()
                if died is None or not self._on_death(died):
                    break
        except Exception:
            _logger.exception("the death of Ray could not be dealt with")
        while not self._closed:  # nothing to watch, but what was started depends on this thread
            select.select([self._wake], [], [])
        os.close(self._wake)
        os.close(self._waker)

    def _await_death(self) -> str | None:
        """Wait until a part of the present Ray dies, and say which; None: `close` was called."""
        parts = _parts()
        if not parts:
            return None
        ends: dict[int, str] = {}
        try:
            if hasattr(os, "pidfd_open"):
                for name, process in parts:
                    try:
                        ends[os.pidfd_open(process.pid)] = name
                    except ProcessLookupError:
                        return _in_words(name, process)
            while not self._closed:
                wait = None if ends else _POLL_SECONDS
                ready, _, _ = select.select([self._wake, *ends], [], [], wait)
                if self._wake in ready:
                    return None
                for name, process in parts:
                    if name in [ends.get(end) for end in ready] or process.poll() is not None:
                        return _in_words(name, process)
            return None
        finally:
            for end in ends:
                os.close(end)


def _parts() -> list[tuple[str, Any]]:
    """The processes that an embedded Ray ends with."""
    node: Any = ray_worker._global_node
    every = {} if node is None else node.all_processes
    return [(name, info.process) for name in _WATCHED for info in every.get(name, ())]


def _in_words(name: str, process: Any) -> str:
    code = process.poll()
    how = ""
    if code is not None and code < 0:
        how = f" by {signal.Signals(-code).name}"
    elif code is not None:
        how = f" with exit code {code}"
    return f"the {name} of the embedded Ray (process {process.pid}) has ended{how}"
