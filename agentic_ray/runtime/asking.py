"""Decides what to ask of Ray's autoscaler. Pure.

The autoscaler (version 2) grants a request as a whole or not at all: if a cluster that may have 8
CPUs is asked for 200, no node is started. Nobody tells how much a cluster may have. So the request
is made smaller, step by step, until nodes are on their way.
"""

from __future__ import annotations

from typing import Final

PATIENCE_SECONDS: Final = 4.0
"""A request of which nothing has come of for so long is not granted."""
LONGEST_SECONDS: Final = 300.0
"""After all sizes were refused the patience doubles, up to this: each request that cannot be
granted makes the autoscaler print a line."""
SHRINK: Final = 4


class Asking:
    """The request of one session.

    Examples
    --------
    >>> from agentic_ray.runtime.asking import Asking
    >>> asking = Asking()
    >>> asking.waits(100, 0)
    >>> asking.decide(0.0, (2, 0), coming=False)
    (102, 0)
    >>> asking.decide(5.0, (2, 0), coming=False)  # nothing has come
    (27, 0)
    """

    def __init__(self) -> None:
        self._waiting = (0, 0)
        self._have = (0, 0)
        self._step = 0
        self._since = 0.0
        self._patience = PATIENCE_SECONDS
        self._begun = False

    @property
    def is_waiting(self) -> bool:
        """Whether work waits that could use more than there is."""
        return any(self._waiting)

    def waits(self, cpus: int, gpus: int) -> None:
        """Take in how many more CPUs and GPUs waiting work could use."""
        self._waiting = (cpus, gpus)

    def decide(self, now: float, have: tuple[int, int], *, coming: bool) -> tuple[int, int]:
        """Return the CPUs and GPUs to ask for, of the cluster as a whole; (0, 0): nothing.

        Parameters
        ----------
        now : float
            Seconds, by a steady clock.
        have : tuple of int
            CPUs and GPUs that the cluster has, as Ray counts them.
        coming : bool
            Whether nodes are on their way.
        """
        if not self.is_waiting:
            self._begun = False
            return (0, 0)
        sizes = _sizes(*self._waiting)
        if not self._begun:
            self._begun, self._step, self._patience = True, 0, PATIENCE_SECONDS
            self._since, self._have = now, have
        grown = have[0] > self._have[0] or have[1] > self._have[1]
        self._have = have
        if coming or grown:
            self._since, self._patience = now, PATIENCE_SECONDS
        elif now - self._since >= self._patience:
            self._since = now
            self._step += 1
            if self._step >= len(sizes):
                self._step = 0
                self._patience = min(2 * self._patience, LONGEST_SECONDS)
        more = sizes[min(self._step, len(sizes) - 1)]
        # (A kind that nothing waits for is not asked for: a node of it might be started.)
        return have[0] + more[0] if more[0] else 0, have[1] + more[1] if more[1] else 0


def _sizes(cpus: int, gpus: int) -> list[tuple[int, int]]:
    """Return what may be asked for beyond what there is, the largest first.

    A cluster that has no nodes of one kind refuses every request in which that kind is named, so
    each is tried alone too.
    """
    found: list[tuple[int, int]] = []
    for most in ((cpus, gpus), (cpus, 0), (0, gpus)):
        size = most
        while any(size):
            found.append(size)
            if max(size) == 1:
                break
            size = (-(-size[0] // SHRINK), -(-size[1] // SHRINK))
    return list(dict.fromkeys(found))
