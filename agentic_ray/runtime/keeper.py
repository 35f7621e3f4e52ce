"""The thread that an embedded Ray depends on, and that watches the processes of that Ray.

When the raylet or the GCS of an embedded Ray dies, every call to Ray blocks for ever, or ends this
process. (A call that touches the object store then ends it, and so does a call that the GCS has not
answered after a minute.) So the thread watches by the kernel, not by asking Ray, and the callback
on a death has to be quick.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import psutil
from ray._private import worker as ray_worker

_logger = logging.getLogger("agentic_ray")
_POLL_SECONDS = 0.25
"""Seconds between looks where the kernel does not report the end of a process."""
_WATCHED = ("gcs_server", "raylet")
_AGENTS = {
    "dashboard/agent.py": "dashboard agent",
    "DashboardAgent": "dashboard agent",
    "runtime_env/agent": "runtime environment agent",
    "RuntimeEnvAgent": "runtime environment agent",
}
"""Texts in the command lines of the raylet's agents, before and after they have named themselves; a
raylet ends with either agent."""


@dataclass(frozen=True, slots=True)
class Part:
    """A process without which an embedded Ray ends. ``process`` is a `subprocess.Popen` of one that
    this process has started, else a `psutil.Process`."""

    name: str
    process: Any
    is_agent: bool = False

    @property
    def has_ended(self) -> bool:
        if self.is_agent:
            return not self.process.is_running() or self.process.status() == psutil.STATUS_ZOMBIE
        return self.process.poll() is not None

    def in_words(self) -> str:
        code = None if self.is_agent else self.process.poll()
        how = ""
        if code is not None and code < 0:
            how = f" by {signal.Signals(-code).name}"
        elif code is not None:
            how = f" with exit code {code}"
        return f"the {self.name} of the embedded Ray (process {self.process.pid}) has ended{how}"


class Keeper:
    """Starts Ray, and reports when a process that it has started dies.

    Parameters
    ----------
    connect : callable
        Joins or starts Ray; True if it was started. Called in a thread that lasts: the kernel kills
        Ray's processes when the *thread* that started them ends (their parent-death signal), so a
        thread of the caller's, such as a job's, must not start them.
    on_death : callable
        Called with the name, in words, of the process that has died. It is called in this keeper's
        thread, may call ``connect`` there, and returns whether there is a new Ray to be watched.
    """

    def __init__(self, connect: Callable[[], bool], on_death: Callable[[str], bool]) -> None:
        self._connect = connect
        self._on_death = on_death
        self._may_watch = threading.Event()
        self._closed = False
        self._parts: list[Part] = []
        self._agents: list[psutil.Process] = []
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
        """Report deaths from now on."""
        self._may_watch.set()

    def end_agents(self) -> None:
        """End the agents of a raylet that has ended. By themselves they try for up to a minute to
        tell a GCS that is not there."""
        for agent in self._agents:
            try:
                agent.kill()
            except psutil.NoSuchProcess:
                continue  # it has ended

    def close(self) -> None:
        """End the thread, and with it the processes that it has started."""
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
        self._parts = []
        while not self._closed:  # nothing to watch, but started processes depend on this thread
            select.select([self._wake], [], [])
        os.close(self._wake)
        os.close(self._waker)

    @property
    def sees_dead(self) -> bool:
        """Whether the present Ray is known to be dead, perhaps before its death is dealt with."""
        return any(part.has_ended for part in self._parts if not part.is_agent)

    def _await_death(self) -> str | None:
        """Wait until a part of the present Ray dies, and name it; None: `close` was called."""
        parts = self._parts = _parts()
        self._agents = [part.process for part in parts if part.is_agent]
        if not parts:
            return None
        ends: dict[int, Part] = {}
        try:
            if hasattr(os, "pidfd_open"):
                for part in parts:
                    try:
                        ends[os.pidfd_open(part.process.pid)] = part
                    except ProcessLookupError:
                        return self._died(part)
            while not self._closed:
                wait = None if ends else _POLL_SECONDS
                ready, _, _ = select.select([self._wake, *ends], [], [], wait)
                if self._wake in ready:
                    return None
                for part in [ends[end] for end in ready] or parts:
                    if ends or part.has_ended:
                        return self._died(part)
            return None
        finally:
            for end in ends:
                os.close(end)

    def _died(self, dead: Part) -> str:
        """Name the part that died, in words.

        After an agent's death kill the rest, the GCS first. Otherwise the raylet takes leave of the
        GCS within milliseconds, the GCS tells this process's core, and the core tries to recover
        the node's objects from an object store that is not there, at which it ends this process.
        """
        if dead.is_agent:
            for part in self._parts:
                if not part.is_agent:
                    part.process.kill()
        return dead.in_words()


def _parts() -> list[Part]:
    """Return the processes without which an embedded Ray ends, the agents of its raylet last."""
    node: Any = ray_worker._global_node
    every = {} if node is None else node.all_processes
    found = [Part(name, info.process) for name in _WATCHED for info in every.get(name, ())]
    for part in [part for part in found if part.name == "raylet"]:
        try:
            children = psutil.Process(part.process.pid).children()
        except psutil.NoSuchProcess:
            continue  # it has ended, which is seen next
        for child in children:
            try:
                line = " ".join(child.cmdline())
            except psutil.Error:
                continue
            found += [Part(name, child, True) for mark, name in _AGENTS.items() if mark in line]
    return found
