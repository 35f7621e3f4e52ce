"""The loop of a process that others are forked off, and the request for one.

A fork takes milliseconds where an import of Ray and NumPy takes seconds. Such a process runs no
thread and no code of the user's, so there is nothing in it that a fork could break.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final

from agentic_ray.wire import readable

NUMBER: Final = struct.Struct("!i")
"""A process's number and, once it has ended, its exit code, as they are written for who asked."""

_REQUEST: Final = b"f"
_READ_BYTES: Final = 4096


def ask(requests: socket.socket, descriptors: Sequence[int]) -> None:
    """Ask for a process that gets these descriptors; the last one is where to write its number
    and, later, its exit code.

    Raises
    ------
    OSError
        The process that others are forked off has ended.
    """
    # (`socket.send_fds` imports the module `array`, in whose place a user may have another)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _packing(len(descriptors)).pack(*descriptors))
    requests.sendmsg([_REQUEST], [rights])


def serve(
    descriptor: int,
    count: int,
    become: Callable[[tuple[int, ...]], None],
    ignored: Sequence[signal.Signals] = (),
) -> None:
    """Fork a process for each request, until the other end of the socket is closed.

    Parameters
    ----------
    descriptor : int
        Socket on which `ask` asks.
    count : int
        Number of descriptors of each request.
    become : callable
        Called in the forked process with its descriptors, all but the last; the process ends when
        it returns.
    ignored : sequence of signal.Signals
        Signals that this process takes and does nothing for; forked ones have the default again.
    """
    requests = socket.socket(fileno=descriptor)
    packing = _packing(count)
    asked, woken = os.pipe()
    for end in (asked, woken):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(woken)
    handled = (signal.SIGCHLD, *ignored)
    for number in handled:
        signal.signal(number, _nothing)
    ends: dict[int, int] = {}  # where to write how each process ended
    while True:
        ready = readable([requests.fileno(), asked], None)
        if asked in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(asked, _READ_BYTES)
        _bury(ends)
        if requests.fileno() not in ready:
            continue
        message, rights, _, _ = requests.recvmsg(1, socket.CMSG_LEN(packing.size))
        if not message or not rights:
            return
        *own, told = packing.unpack(rights[0][2][: packing.size])
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in handled:
                signal.signal(number, signal.SIG_DFL)
            for end in (requests.detach(), asked, woken, told, *ends.values()):
                os.close(end)
            become(tuple(own))
            os._exit(0)
        for end in own:
            os.close(end)
        ends[pid] = told
        _write(told, pid)


def _packing(count: int) -> struct.Struct:
    return struct.Struct(f"{count}i")


def _bury(ends: dict[int, int]) -> None:
    """Write how each process that has ended did so."""
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
    with contextlib.suppress(OSError):  # who asked has lost interest
        os.write(told, NUMBER.pack(number))


def _nothing(number: int, frame: object) -> None:
    """Do nothing: the mere handler wakes the loop, which looks for processes that have ended."""
