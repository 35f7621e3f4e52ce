"""The process that runners are forked off: it has imported what they need, and runs no thread.

A fork takes milliseconds where an import of Ray and NumPy takes seconds. This process never joins
a cluster and runs no code of the user's, so there is nothing in it that a fork could break. It ends
when its master does, and its runners with it.

    python -m agentic_ray.master.runners DESCRIPTOR
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import socket
import struct
import sys
from typing import Final

from agentic_ray.wire import readable

_FOUR: Final = struct.Struct("4i")
"""Descriptors of each runner, sent along with the wish for one: its line to the master, where its
two streams go, and where this process writes its number and, later, how it ended."""

_IMPORTED: Final = ("agentic_ray.array", "agentic_ray.mapreduce", "agentic_ray.runtime.lent")
"""What runners use, so that it is there in each from the beginning."""

NUMBER: Final = struct.Struct("!i")
_PR_SET_PDEATHSIG: Final = 1
_REQUEST: Final = b"r"
_KILLED_FIRST: Final = "500"
"""What a runner adds to its score for the kernel's killer: it goes before the master does."""


def main(descriptor: int) -> None:
    """Fork a runner for each request that arrives, until the master closes the socket."""
    # Not before: the master imports this module too, and needs no Ray for that.
    from agentic_ray.master.runners import child

    for name in _IMPORTED:
        importlib.import_module(name)

    requests = socket.socket(fileno=descriptor)
    asked, woken = os.pipe()
    for end in (asked, woken):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, _nothing)
    # Ctrl-C, and what a service manager sends to all processes at once, are the master's to deal
    # with: jobs may go on for a while.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _nothing)
    ends: dict[int, int] = {}  # where to write how each runner ended
    while True:
        ready = readable([requests.fileno(), asked], None)
        if asked in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(asked, 4096)
        _bury(ends)
        if requests.fileno() not in ready:
            continue
        given = _given(requests)
        if given is None:
            return
        line, out, err, told = given
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            for end in (requests.detach(), asked, woken, told, *ends.values()):
                os.close(end)
            _become_runner(out, err)
            child.main(line)
        for end in (line, out, err):
            os.close(end)
        ends[pid] = told
        _write(told, pid)


def ask(requests: socket.socket, descriptors: list[int]) -> None:
    """For the master: have a runner forked with these descriptors."""
    # (`socket.send_fds` imports the module `array`, in whose place a user may have another)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _FOUR.pack(*descriptors))
    requests.sendmsg([_REQUEST], [rights])


def _given(requests: socket.socket) -> tuple[int, ...] | None:
    """The descriptors of the next request; None when the master has closed the socket."""
    message, rights, _, _ = requests.recvmsg(1, socket.CMSG_LEN(_FOUR.size))
    if not message or not rights:
        return None
    return _FOUR.unpack(rights[0][2][: _FOUR.size])


def _bury(ends: dict[int, int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        told = ends.pop(pid, None)
        if told is not None:
            _write(told, os.waitstatus_to_exitcode(status))
            os.close(told)


def _write(told: int, number: int) -> None:
    with contextlib.suppress(OSError):  # the master has lost interest
        os.write(told, NUMBER.pack(number))


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


def _nothing(number: int, frame: object) -> None:
    """Do nothing: the mere handler wakes the loop, which looks for processes that have ended."""
