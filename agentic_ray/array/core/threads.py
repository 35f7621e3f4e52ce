"""Tasks in threads of the caller's process: quickest where the work is short and the data is here.

The tasks are those that executors would run, with one thread of BLAS, so the bits are the same.
"""

from __future__ import annotations

import contextvars
import heapq
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentic_ray.array.core import sharing
from agentic_ray.array.core.order import in_c_order
from agentic_ray.blas import computing
from agentic_ray.graph import Task, TaskGraph, replace_refs


@dataclass(slots=True)
class Ran:
    """Results of some tasks: the wanted values by key, and the seconds that each task took."""

    values: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def run(
    tasks: Sequence[Task],
    outputs: Sequence[str],
    threads: int,
    given: Mapping[str, Any] | None = None,
) -> Ran:
    """Run tasks, listed in a valid order, in ``threads`` threads, of which the caller's is one.

    A value is dropped after its last use. With one thread tasks run in the order in which they
    are listed, with several depth first, so that a chunk goes through its chain while it is in
    the cache. A thread that finds no task ready helps with the cache blocks of those under way.

    Parameters
    ----------
    given : mapping, optional
        Values by key that tasks refer to and no task makes; they are none of their dependencies.

    Raises
    ------
    Exception
        What a task raised; of several that of the first in the order of the tasks.
    """
    if threads > 1 and len(tasks) > 1:
        tasks = TaskGraph(tasks, outputs).tasks
    work = _Work(tasks, outputs, threads, given or {})
    others = [
        threading.Thread(
            target=contextvars.copy_context().run,
            args=(work.go_on,),
            name="agentic-ray-array",
            daemon=True,
        )
        for _ in range(threads - 1)
    ]
    for other in others:
        other.start()
    try:
        work.go_on()
    finally:
        work.stop()
        for other in others:
            other.join()
    work.raise_error()
    return Ran(work.made, work.seconds)


class _Work:
    """Tasks that are shared out among threads, which are a `sharing.Crew`."""

    def __init__(
        self,
        tasks: Sequence[Task],
        outputs: Sequence[str],
        threads: int,
        given: Mapping[str, Any],
    ) -> None:
        self.threads = threads
        self._given = given
        self._shares: list[sharing.Share] = []
        self._extra_seconds: dict[int, float] = {}  # by thread: what helpers spent on its task
        self.made: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self._tasks = tasks
        self._uses = Counter(key for task in tasks for key in task.dependencies)
        self._uses.update(outputs)
        self._users: dict[str, list[int]] = {}
        self._waits_for: list[int] = []
        self._ready: list[int] = []  # heap: the first in the order of the tasks goes first
        for i, task in enumerate(tasks):
            self._waits_for.append(len(task.dependencies))
            if not task.dependencies:
                self._ready.append(i)
            for key in task.dependencies:
                self._users.setdefault(key, []).append(i)
        self._left = len(tasks)
        self._errors: list[tuple[int, BaseException]] = []
        self._changed = threading.Condition(threading.Lock())

    def go_on(self) -> None:
        """Run tasks, and parts of other threads' tasks, until none is left, or one has failed."""
        token = sharing.crew.set(self if self.threads > 1 else None)
        try:
            while (found := self._next()) is not None:
                if isinstance(found, sharing.Share):
                    with computing:
                        found.help()
                elif not self._do(found):
                    return
        finally:
            sharing.crew.reset(token)

    def offer(self, share: sharing.Share) -> None:
        with self._changed:
            self._shares.append(share)
            self._changed.notify_all()

    def withdraw(self, share: sharing.Share) -> None:
        with self._changed:
            self._shares.remove(share)
            owner = threading.get_ident()
            self._extra_seconds[owner] = self._extra_seconds.get(owner, 0.0) + share.extra_seconds

    def _do(self, at: int) -> bool:
        """Run one task; return whether it succeeded."""
        task = self._tasks[at]
        began = time.perf_counter()
        try:
            value = self._value(task)
        except BaseException as error:  # it is raised again in the caller's thread
            with self._changed:
                self._errors.append((at, error))
                self._left = 0
                self._changed.notify_all()
            return False
        helped = self._extra_seconds.pop(threading.get_ident(), 0.0)
        self._finished(task, value, time.perf_counter() - began + helped)
        return True

    def stop(self) -> None:
        """Begin no other task."""
        with self._changed:
            self._left = 0
            self._changed.notify_all()

    def raise_error(self) -> None:
        if self._errors:
            _, error = min(self._errors, key=lambda entry: entry[0])
            raise error

    def _next(self) -> int | sharing.Share | None:
        """Wait for a task that is ready, or else for a part of one that is under way. Return None
        when all is done."""
        with self._changed:
            while self._left:
                if self._ready:
                    return heapq.heappop(self._ready)
                for share in self._shares:
                    if share.has_more:
                        return share
                self._changed.wait()
            return None

    def _value(self, task: Task) -> Any:
        args = task.args
        if self._given or task.dependencies:
            args = replace_refs(args, self._found)
        function: Any = task.codelet.cpu
        with computing:
            return function(*in_c_order(args), **task.kwargs, xp=np)

    def _found(self, key: str) -> Any:
        return self._given[key] if key in self._given else self.made[key]

    def _finished(self, task: Task, value: Any, seconds: float) -> None:
        with self._changed:
            self.made[task.key] = value
            self.seconds[task.key] = seconds
            self._left = max(self._left - 1, 0)
            for key in task.dependencies:
                self._uses[key] -= 1
                if not self._uses[key]:
                    del self.made[key]
            begun = 0
            for user in self._users.get(task.key, ()):
                self._waits_for[user] -= 1
                if not self._waits_for[user]:
                    heapq.heappush(self._ready, user)
                    begun += 1
            if begun > 1:
                self._changed.notify(begun - 1)
            if not self._left:
                self._changed.notify_all()
