"""The process that runners are forked off: it has imported what they need, and runs no thread.

This process never joins a cluster. It ends when its master does, and its runners with it.

    python -m agentic_ray.master.runners DESCRIPTOR
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import sys
from typing import Final

from agentic_ray.forking import serve

DESCRIPTORS: Final = 4
"""Number of descriptors of each runner: its line to the master, where its two streams go, and where
this process writes its number and, later, its exit code."""

_IMPORTED: Final = ("agentic_ray.array", "agentic_ray.mapreduce", "agentic_ray.runtime.lent")
"""What runners use, so that it is there in each from the beginning."""

_PR_SET_PDEATHSIG: Final = 1
_KILLED_FIRST: Final = "500"
"""What a runner adds to its score for the kernel's killer: it goes before the master does."""


def main(descriptor: int) -> None:
    """Fork a runner for each request that arrives, until the master closes the socket."""
    # Not before: the master imports this module too, and needs no Ray for that.
    from agentic_ray.master.runners import child

    for name in _IMPORTED:
        importlib.import_module(name)

    def become(own: tuple[int, ...]) -> None:
        line, out, err = own
        _become_runner(out, err)
        child.main(line)

    # Ctrl-C, and what a service manager sends to all processes at once, are the master's to deal
    # with: jobs may go on for a while.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(descriptor, DESCRIPTORS, become, ignored=[signal.SIGTERM])


def _become_runner(out: int, err: int) -> None:
    """A session of its own, which can be killed as a whole; streams of its own; dies with us."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_KILLED_FIRST)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
        os.close(source)
