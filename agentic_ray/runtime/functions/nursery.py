"""The process that a card's function processes are forked off, and the executor's handles of them.

The nursery touches no device, so that a fork breaks nothing of one. It ends when its executor does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Final

from agentic_ray.forking import NUMBER, ask, serve
from agentic_ray.wire import readable

_DESCRIPTORS: Final = 3
"""Number of descriptors of each process: its calls, its executor's life, and where the nursery
writes its number and, later, its exit code."""
_WAIT_SECONDS: Final = 60.0
_PROGRAM: Final = (
    "import sys; from agentic_ray.runtime.functions import child, nursery; "
    "nursery.main(int(sys.argv[1]), child.run)"
)


class ForkedProcess:
    """A process forked off a nursery, with the methods of `subprocess.Popen` that the pool uses."""

    def __init__(self, told: int) -> None:
        self._told = told
        self._lock = threading.Lock()
        self.returncode: int | None = None
        number = self._read(_WAIT_SECONDS)
        if number is None:
            os.close(told)
            raise ChildProcessError("the process that function processes are forked off has ended")
        self.pid = number

    def poll(self) -> int | None:
        """Return the exit code if it has ended, as `subprocess` gives it."""
        return self._look(0.0)

    def kill(self) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait until it has ended and was buried; return the exit code."""
        code = self._look(_WAIT_SECONDS)
        return -signal.SIGKILL if code is None else code

    def _look(self, seconds: float) -> int | None:
        with self._lock:
            if self.returncode is None and readable([self._told], seconds):
                code = self._read(0.0)
                # (without a number the nursery has ended; nobody can tell how the process does)
                self.returncode = -signal.SIGKILL if code is None else code
                os.close(self._told)
            return self.returncode

    def _read(self, seconds: float) -> int | None:
        if not readable([self._told], seconds):
            return None
        data = os.read(self._told, NUMBER.size)
        return int(NUMBER.unpack(data)[0]) if len(data) == NUMBER.size else None


class Nursery:
    """Handle of a nursery; started when the first process is wanted, and anew if it has died.

    Parameters
    ----------
    environment : mapping
        Environment variables of the processes, beside those of this one.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def fork(self, calls: int, life: int) -> ForkedProcess:
        """Have a process forked with these descriptors; they stay this process's to close.

        Raises
        ------
        ChildProcessError
            No process can be started.
        """
        mine, told = os.pipe()
        try:
            with self._lock:
                self._ask((calls, life, told))
        except OSError as error:
            os.close(mine)
            raise ChildProcessError(f"no function process can be started: {error}") from error
        finally:
            os.close(told)
        return ForkedProcess(mine)

    def close(self) -> None:
        """End the nursery; processes that it has forked end with their executor's life."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            if self._process is not None:
                self._process.kill()
                self._process.wait()
            self._socket = self._process = None

    def _ask(self, descriptors: tuple[int, ...]) -> None:
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._socket is not None
        ask(self._socket, descriptors)

    def _start(self) -> None:
        if self._socket is not None:
            self._socket.close()
        here, there = socket.socketpair()
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-c", _PROGRAM, str(there.fileno())],
                pass_fds=(there.fileno(),),
                env={
                    **os.environ,
                    **self._environment,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                },
                stdin=subprocess.DEVNULL,
            )
        self._socket = here


def main(descriptor: int, run: Callable[[int, int], None]) -> None:
    """Fork a process that calls ``run`` for each request, until the executor closes the socket."""
    serve(descriptor, _DESCRIPTORS, lambda own: run(*own))
