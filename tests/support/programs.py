"""Programs in processes of their own, for what would disturb the session that the tests share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import psutil

ROOT = Path(__file__).parents[2]
_MARK = "AGENTIC_RAY_TEST_MARK"  # every process a program starts inherits it


def without_ray_settings() -> dict[str, str]:
    """The environment of a program that starts a Ray of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


@dataclass
class Program:
    """A script in a file of its own, and a way to find all processes it has started."""

    path: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def environment(self) -> dict[str, str]:
        # "local": see tests/conftest.py
        inherited = without_ray_settings()
        search = os.pathsep.join(filter(None, [str(ROOT), inherited.get("PYTHONPATH", "")]))
        return {**inherited, "RAY_ADDRESS": "local", "PYTHONPATH": search, _MARK: self.mark}

    def run(self, timeout: float = 280, **environment: str) -> str:
        """Its standard output; it must end well."""
        done = subprocess.run(
            [sys.executable, str(self.path)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**self.environment, **environment},
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def processes(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self.mark and process.status() != "zombie":
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def leftovers(self, seconds: float = 90) -> list[str]:
        """What still runs of it when it had ``seconds`` to go away. (An agent of a raylet that was
        killed with the program tries for a minute to tell the dead GCS.)"""
        deadline = time.monotonic() + seconds
        while (found := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return [" ".join(process.cmdline())[:120] for process in found if process.is_running()]

    def end(self) -> None:
        """Kill what is left of it."""
        for process in self.processes():
            process.kill()


class Scenarios:
    """A script that runs its functions by name, one after the other, in one process: those that ask
    for the same Ray share it. See `serve_scenarios`, the other side."""

    def __init__(self, script: Path, environment: Mapping[str, str], log: Path) -> None:
        self._script = script
        self._log = log
        self._environment = {**without_ray_settings(), **environment}
        self._process: subprocess.Popen[str] | None = None
        self._lines: SimpleQueue[str] = SimpleQueue()

    def run(self, name: str, seconds: float = 150) -> str:
        """Run a function; return what it has printed.

        Raises
        ------
        AssertionError
            It failed, took too long, or ended the process. The next one gets a new process.
        """
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        printed: list[str] = []
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                line = f"{_FAILED}: it took more than {seconds:g} s"
            if line.strip() == _DONE:
                return "".join(printed)
            if line.startswith(_FAILED) or not line:
                self.close()
                raise AssertionError(f"{name}: {line}{''.join(printed)}{self._end_of_log()}")
            printed.append(line)

    def close(self) -> None:
        """End the process, and what it has started."""
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None
        started = psutil.Process(process.pid).children(recursive=True)
        process.stdin.close()  # it ends when there is nothing more to read
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for one in psutil.wait_procs(started, timeout=10)[1]:
            one.kill()

    def _start(self) -> None:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(self._script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
            )
        self._lines = SimpleQueue()
        Thread(target=self._read, args=(self._process, self._lines), daemon=True).start()

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: SimpleQueue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    def _end_of_log(self) -> str:
        return self._log.read_text()[-8000:] if self._log.exists() else ""


_DONE = "<scenario done>"
_FAILED = "<scenario failed>"


def serve_scenarios(functions: Mapping[str, object]) -> None:
    """Run the functions that the lines of the standard input name, for `Scenarios`."""
    for line in sys.stdin:
        function = functions[line.strip()]
        assert callable(function)
        try:
            function()
        except BaseException:
            traceback.print_exc()
            print(_FAILED, flush=True)
        else:
            print(_DONE, flush=True)
