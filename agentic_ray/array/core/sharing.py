"""Lets idle threads of this process take parts of a task that another thread runs.

A task of one large block would keep one core busy while the others wait. So it gives its cache
blocks to `each`. On an executor, and where no thread is idle, the calling thread computes all
parts, one after the other. The parts are the same either way and their results come in the same
order, so the bits are the same, too.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

BATCH_PARTS = 32
"""Parts for each thread whose results `in_order` keeps at one time."""
PARTS_PER_THREAD = 4
"""So many parts for each thread end at about the same time, though cores differ in speed."""


class Crew(Protocol):
    """The threads that run some tasks."""

    threads: int

    def offer(self, share: Share) -> None:
        """Let idle threads take parts of ``share``."""

    def withdraw(self, share: Share) -> None:
        """Let no other thread take parts, and add the seconds of its helpers to the task's."""


crew: ContextVar[Crew | None] = ContextVar("crew", default=None)
"""The crew that the current thread belongs to; None where there is no other thread."""


class Share:
    """Parts of one task, computed by any number of threads.

    Parameters
    ----------
    function : callable
        Called with the number of each part, once.
    count : int
        Number of parts.

    Attributes
    ----------
    results : list
        Value of each part.
    extra_seconds : float
        Seconds that helpers spent, less those in which the owner only waited for them.
    """

    def __init__(self, function: Callable[[int], Any], count: int) -> None:
        self.results: list[Any] = [None] * count
        self.extra_seconds = 0.0
        self._function = function
        self._count = count
        self._begun = 0
        self._helpers = 0
        self._errors: list[tuple[int, BaseException]] = []
        self._changed = threading.Condition(threading.Lock())

    @property
    def has_more(self) -> bool:
        """Whether a part has not been begun."""
        return self._begun < self._count

    def help(self) -> None:
        """Compute parts in a thread that is not the owner's until none is left to begin."""
        began = time.perf_counter()
        with self._changed:
            self._helpers += 1
        self._work()
        with self._changed:
            self._helpers -= 1
            self.extra_seconds += time.perf_counter() - began
            self._changed.notify_all()

    def finish(self) -> None:
        """Compute parts in the owner's thread, and wait for those that others have begun.

        Raises
        ------
        Exception
            What a part raised; of several that of the first part.
        """
        try:
            self._work()
        finally:
            with self._changed:
                self._begun = self._count
                began = time.perf_counter()
                while self._helpers:
                    self._changed.wait()
                self.extra_seconds -= time.perf_counter() - began
        if self._errors:
            raise min(self._errors, key=lambda entry: entry[0])[1]

    def _work(self) -> None:
        while True:
            with self._changed:
                at = self._begun
                if at >= self._count:
                    return
                self._begun += 1
            try:
                self.results[at] = self._function(at)
            except BaseException as error:  # it is raised again in the owner's thread
                with self._changed:
                    self._errors.append((at, error))
                    self._begun = self._count
                return


def threads() -> int:
    """Return the number of threads that `each` may use."""
    found = crew.get()
    return 1 if found is None else found.threads


def each(function: Callable[[int], T], count: int) -> list[T]:
    """Call ``function`` with 0 to ``count - 1``, in idle threads as well; return the results in
    this order.

    Raises
    ------
    Exception
        What ``function`` raised; of several the first.
    """
    found = crew.get()
    if found is None or count < 2:
        return [function(at) for at in range(count)]
    share = Share(function, count)
    found.offer(share)
    try:
        share.finish()
    finally:
        found.withdraw(share)
    return share.results


def in_order(function: Callable[[int], T], count: int) -> Iterator[T]:
    """Yield what `each` would return, and hold the results of few parts at one time."""
    found = crew.get()
    if found is None:
        yield from map(function, range(count))
        return
    batch = BATCH_PARTS * found.threads
    for first in range(0, count, batch):
        yield from each(functools.partial(_shifted, function, first), min(batch, count - first))


def _shifted(function: Callable[[int], T], first: int, at: int) -> T:
    return function(first + at)


def runs(size: int, least: int) -> list[tuple[int, int]]:
    """Cut ``size`` elements into a few runs for each thread, multiples of ``least`` but for the
    last; one run where there is one thread.

    Returns
    -------
    list of (start, stop)
    """
    count = threads()
    if count == 1:
        return [(0, size)]
    blocks = -(-size // least)
    each_blocks = -(-blocks // (PARTS_PER_THREAD * count))
    starts = range(0, size, max(each_blocks, 1) * least)
    return [(a, min(b, size)) for a, b in itertools.pairwise([*starts, size])]
