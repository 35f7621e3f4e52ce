"""Ladder of steps when a device's memory does not suffice: free, try again, split, give up.

A pure function over work that can be run and halved; it knows neither Ray nor a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from agentic_ray.errors import OutOfDeviceMemoryError

MOST_SPLITS: Final = 6
"""Number of times that work is halved at most: into 64 parts."""


@dataclass(frozen=True, slots=True)
class Note:
    """A step taken on the way, for the events of the run."""

    kind: str
    text: str


class Work(Protocol):
    """Work that runs on a device, all or nothing."""

    label: str

    def run(self) -> None:
        """Do the work and keep the result; after an error nothing of it is kept."""
        ...

    def halves(self) -> tuple[Work, Work] | None:
        """Cut the work in two parts, to be run in this order; return None if it cannot be cut."""
        ...

    def join(self) -> None:
        """Join the results of the halves, which have both run, to the whole result."""
        ...


class CannotSplitError(Exception):
    """Internal: the results of two halves cannot be joined to the result of the whole."""


def climb(
    work: Work,
    *,
    ran_out: Callable[[BaseException], bool],
    make_room: Callable[[], str],
    note: Callable[[Note], None],
    parts: int = 1,
) -> None:
    """Run ``work``: as it is; again with room made; in halves, each in this same way.

    Parameters
    ----------
    ran_out : callable
        Returns whether an error says that memory did not suffice. Any other error is raised.
    make_room : callable
        Frees memory on the device and says in words what was freed.
    note : callable
        Called with each step.
    parts : int
        Number of parts: halve at once, without trying the whole, until there are so many.

    Raises
    ------
    OutOfDeviceMemoryError
        No step helped. The work has left no result behind.
    """

    def rise(work: Work, parts: int, splits_left: int) -> None:
        if parts > 1 and splits_left:
            halves = work.halves()
            if halves is not None:
                note(Note("memory: split", f"{work.label}: runs in two parts, as admitted"))
                in_halves(work, halves, -(-parts // 2), splits_left - 1)
                return
        why = _attempt(work, ran_out)
        if why is None:
            return
        # The error is gone here, and with its traceback all memory that the failed attempt held.
        note(Note("memory: freed", f"{work.label}: {why}; {make_room()}; tried again"))
        why = _attempt(work, ran_out)
        if why is None:
            return
        halves = work.halves() if splits_left else None
        if halves is None:
            raise OutOfDeviceMemoryError(f"{work.label} does not fit and cannot be split: {why}")
        make_room()
        note(Note("memory: split", f"{work.label}: {why}; runs in two parts"))
        in_halves(work, halves, 1, splits_left - 1)

    def in_halves(work: Work, halves: tuple[Work, Work], parts: int, splits_left: int) -> None:
        for half in halves:
            rise(half, parts, splits_left)
        try:
            work.join()
        except CannotSplitError as error:
            raise OutOfDeviceMemoryError(f"{work.label} does not fit: {error}") from None

    rise(work, parts, MOST_SPLITS)


def _attempt(work: Work, ran_out: Callable[[BaseException], bool]) -> str | None:
    """Run it; return the text of the error if memory did not suffice, None if it did."""
    try:
        work.run()
    except Exception as error:
        if not ran_out(error):
            raise
        return str(error) or type(error).__name__
    return None
