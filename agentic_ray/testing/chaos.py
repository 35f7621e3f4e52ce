"""`Chaos`: kills processes of one Ray cluster at random times, to see that the work survives."""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, get_args

import psutil

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.runtime.processes import RayProcess, processes_of, session_name

_logger = logging.getLogger("agentic_ray")

Kind = Literal["worker", "executor", "node", "master"]
_REAP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was killed.

    Parameters
    ----------
    at : float
        Seconds since the epoch.
    kind : {"worker", "executor", "node", "master"}
    pid : int
    title : str
        Name that the process gave itself, e.g. ``"ray::CpuExecutor"``.
    """

    at: float
    kind: Kind
    pid: int
    title: str


class Chaos:
    """Kill (SIGKILL) worker, executor, node and master processes at random, while in its block.

    It kills only processes on this machine that belong to the Ray cluster which the calling process
    has joined: its raylets, and the worker processes that these have started. It never kills the
    calling process, a process that started it, or the head's raylet, without which there is no
    cluster.

    Parameters
    ----------
    seed : int
        Seed of the times and the choices. (The processes to choose from depend on the run.)
    every_seconds : float
        Time between two kills, on average: each pause is drawn from half to one and a half
        times this.
    kinds : sequence of {"worker", "executor", "node", "master"}
        Kinds of process that may die. One kind is drawn first, evenly, and then one process of it,
        so that rare kinds are not spared. A kind that has no process then is passed over.

        ``worker``: a worker process, idle or running a function; ``executor``: the actor that
        runs codelets on a node or a GPU; ``node``: a raylet, and with it its processes;
        ``master``: a `Master` in an actor, and the processes named by ``masters``.
    masters : callable, optional
        Returns the numbers of further processes that count as masters, such as that of
        an ``agentic-ray serve`` that you have started.
    least_age_seconds : float
        Age below which processes are spared, so that the successor of a killed process gets to
        work. Where a process takes longer than this to start, nothing may ever get done.
    least_nodes : int
        Nodes besides the head that are left alive; no node is killed below that.
    most_kills : int, optional
        Number of kills after which it ends, so that on a machine of any speed the rest gets done.
    on_kill : callable, optional
        Called with each `Kill` right after it, in the thread that kills: the place to start a new
        node. An exception in it ends the chaos, and is raised on leaving the block.

    Attributes
    ----------
    kills : list of Kill
        Killed processes, in order.

    Raises
    ------
    InvalidArgumentError
        An argument cannot be used.
    SessionError
        On entering: this process has joined no Ray cluster.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> from agentic_ray.testing import Chaos
    >>> with Chaos(seed=1, every_seconds=0.5, kinds=("worker", "executor")) as chaos:
    ...     total = ar.map_reduce(lambda x: x * x, range(100_000), lambda a, b: a + b)
    >>> assert total == 333328333350000
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        every_seconds: float = 2.0,
        kinds: Sequence[Kind] = ("worker", "executor", "node"),
        masters: Callable[[], Iterable[int]] = tuple,
        least_age_seconds: float = 5.0,
        least_nodes: int = 0,
        most_kills: int | None = None,
        on_kill: Callable[[Kill], None] | None = None,
    ) -> None:
        unknown = [kind for kind in kinds if kind not in get_args(Kind)]
        if unknown or not kinds:
            raise InvalidArgumentError(
                f"kinds must be some of {', '.join(get_args(Kind))}, not {list(kinds)}"
            )
        if not 0 < every_seconds <= threading.TIMEOUT_MAX / 2:
            raise InvalidArgumentError(f"every_seconds must be > 0, not {every_seconds}")
        self.kills: list[Kill] = []
        self._random = random.Random(seed)
        self._every_seconds = every_seconds
        self._kinds = tuple(kinds)
        self._masters = masters
        self._least_age_seconds = least_age_seconds
        self._least_nodes = least_nodes
        self._most_kills = math.inf if most_kills is None else most_kills
        self._on_kill = on_kill
        self._session = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Chaos:
        self._session = session_name()
        self._stop.clear()
        self._thread = threading.Thread(target=self._main, name="chaos", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def kill_one(self) -> Kill | None:
        """Kill one process now; None if there is none of the kinds. Called in the block."""
        for kind in self._random.sample(self._kinds, len(self._kinds)):
            candidates = self._candidates(kind)
            if not candidates:
                continue
            chosen = self._random.choice(candidates)
            if not _kill(chosen):
                continue
            kill = Kill(time.time(), kind, chosen.pid, chosen.title)
            self.kills.append(kill)
            _logger.info("chaos: killed %s %d (%s)", kill.kind, kill.pid, kill.title)
            return kill
        return None

    def _main(self) -> None:
        try:
            while len(self.kills) < self._most_kills and not self._stop.wait(
                self._every_seconds * self._random.uniform(0.5, 1.5)
            ):
                kill = self.kill_one()
                if kill is not None and self._on_kill is not None:
                    self._on_kill(kill)
        except BaseException as error:  # raised again when the block is left
            self._error = error

    def _candidates(self, kind: Kind) -> list[RayProcess]:
        found = [process for process in processes_of(self._session) if process.role == kind]
        if kind == "node" and len(found) <= self._least_nodes:
            return []
        if kind == "master":
            for pid in self._masters():
                if pid == os.getpid():
                    raise InvalidArgumentError("masters names the calling process itself")
                try:
                    process = psutil.Process(pid)
                    found.append(RayProcess("master", pid, process.create_time(), process.name()))
                except psutil.NoSuchProcess:
                    continue
        latest = time.time() - self._least_age_seconds
        return [process for process in found if process.started_at <= latest]


def _kill(chosen: RayProcess) -> bool:
    """Kill by SIGKILL; return False if the process has ended, though its number may be another's by
    now.

    A raylet that this process has started would stay as a zombie until it is waited for, and its
    workers, which ask the system whether it is there, would live on.
    """
    try:
        process = psutil.Process(chosen.pid)
        if process.create_time() != chosen.started_at or process.status() == "zombie":
            return False
        process.kill()
    except psutil.NoSuchProcess:
        return False
    if chosen.role == "node":
        try:
            process.wait(_REAP_SECONDS)
        except psutil.TimeoutExpired:
            pass  # another process started it, and does not wait for it
    return True
