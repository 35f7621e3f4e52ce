"""`Nursery` and `RunnerProcess`: the master's handles of the processes in which jobs run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

import psutil

from agentic_ray.errors import SessionError
from agentic_ray.forking import NUMBER, ask
from agentic_ray.wire import Wire, readable

SECRETS: Final = frozenset(
    {"AGENTIC_RAY_TOKEN", "AGENTIC_RAY_WEBHOOK_SECRET", "PGPASSWORD", "RAY_AUTH_TOKEN"}
)
"""Variables of the environment that are the service's, and no business of jobs."""

MOST_ANSWER_BYTES: Final = 1 << 31
"""A runner that sends more at once is cut off."""

_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 5.0
_WITHIN_SECONDS: Final = 60.0
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def clean_environment(secrets: Collection[str] = SECRETS) -> dict[str, str]:
    """This process's environment without what jobs must not see."""
    return {name: value for name, value in os.environ.items() if name not in secrets}


def _environment() -> dict[str, str]:
    """Return the environment of the nursery, which finds this package where this process has found
    it."""
    found = clean_environment()
    paths = [found.get("PYTHONPATH", ""), str(Path(__file__).resolve().parents[3])]
    return found | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


class RunnerProcess:
    """A runner. Used by one thread at a time."""

    def __init__(self, wire: Wire, out: int, err: int, told: int) -> None:
        self.wire = wire
        self.streams = {"stdout": out, "stderr": err}
        self.known: set[str] = set()
        """Tokens of the code that it has."""
        self.knows_path = False
        self.jobs = 0
        self.idle_since = time.monotonic()
        self.told = told
        """Can be read from once the process has ended."""
        for descriptor in (out, err, told):
            os.set_blocking(descriptor, False)
        pid = self._read_number(_START_SECONDS)
        if pid is None:
            self.close()
            raise SessionError("no process for a job could be started")
        self.pid = pid
        self.first_bytes = self.memory_bytes()

    def memory_bytes(self) -> int:
        """Resident memory that is its own; what it shares with its nursery counts until it writes
        to it. 0 if it has ended."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                fields = file.read().split()
            return int(fields[1]) * _PAGE
        except FileNotFoundError:
            try:
                return int(psutil.Process(self.pid).memory_info().rss)
            except psutil.Error:
                return 0
        except OSError:  # it is ending
            return 0

    @property
    def is_fit(self) -> bool:
        """Whether nothing is known against giving it a job: it is there, and has nothing to say."""
        return not readable([self.wire.fileno(), self.told], 0)

    def kill(self) -> None:
        """End it at once, and all that it has started and that is still of its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def exit_code(self, seconds: float) -> int | None:
        """Wait for its end and return its exit code, negative for a signal; None if it has not
        ended within so many seconds, or if the code is not known."""
        return self._read_number(seconds)

    def close(self) -> None:
        """Let it go: it ends by itself when its line does."""
        self.wire.close()
        for descriptor in (*self.streams.values(), self.told):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _read_number(self, seconds: float) -> int | None:
        if not readable([self.told], seconds):
            return None
        data = os.read(self.told, NUMBER.size)
        return NUMBER.unpack(data)[0] if len(data) == NUMBER.size else None


class Nursery:
    """Starts the process that forks runners, and starts it anew when it has died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._closed = False

    def fork(self) -> RunnerProcess:
        """A new runner.

        Raises
        ------
        SessionError
            None can be started.
        """
        problem: Exception | None = None
        for _ in range(2):
            try:
                return self._fork()
            except (OSError, SessionError) as error:
                problem = error
                with self._lock:
                    self._end()
        raise SessionError(f"no process for a job can be started: {problem}") from problem

    def start(self) -> None:
        """Have the process started, which takes seconds; `fork` does so too."""
        with self._lock:
            self._start()

    def close(self) -> None:
        """End it, and with it all runners."""
        with self._lock:
            self._closed = True
            self._end()

    @property
    def pid(self) -> int | None:
        """The number of its process; None if there is none."""
        return None if self._process is None else self._process.pid

    def _fork(self) -> RunnerProcess:
        mine, its = socket.socketpair()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        told_read, told_write = os.pipe()
        try:
            with self._lock:
                requests = self._start()
                ask(requests, [its.fileno(), out_write, err_write, told_write])
        except BaseException:
            mine.close()
            for descriptor in (out_read, err_read, told_read):
                os.close(descriptor)
            raise
        finally:
            its.close()
            for descriptor in (out_write, err_write, told_write):
                os.close(descriptor)
        # (Only within a frame: a process that is stopped there must not hold up its job's thread.)
        mine.settimeout(_WITHIN_SECONDS)
        return RunnerProcess(Wire(mine, MOST_ANSWER_BYTES), out_read, err_read, told_read)

    def _start(self) -> socket.socket:
        if self._closed:
            raise SessionError("the master is closed")
        if self._requests is not None and self._process is not None:
            if self._process.poll() is None:
                return self._requests
            self._end()
        mine, its = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __package__, str(its.fileno())],
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,
            )
        except OSError:
            mine.close()
            raise
        finally:
            its.close()
        self._requests = mine
        return mine

    def _end(self) -> None:
        if self._requests is not None:
            self._requests.close()
            self._requests = None
        if self._process is not None:
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
