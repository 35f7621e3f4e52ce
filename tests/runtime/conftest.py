"""Programs of their own, for what would disturb the session that the tests share."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

_MARK = "AGENTIC_RAY_TEST_MARK"  # every process a program starts inherits it


@dataclass
class Program:
    """A script in a file of its own, and a way to find all processes it has started."""

    path: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        # "local": see tests/conftest.py
        return {**inherited, "RAY_ADDRESS": "local", _MARK: self.mark}

    def run(self, timeout: float = 120, **environment: str) -> str:
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
        killed, as Ray does where it is slow to end, tries for a minute to tell the dead GCS.)"""
        deadline = time.monotonic() + seconds
        while (found := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return [" ".join(process.cmdline())[:120] for process in found if process.is_running()]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    """Make a Program of some source; what it leaves running is ended after the test."""
    made: list[Program] = []

    def make(source: str) -> Program:
        path = tmp_path / f"program{len(made)}.py"
        path.write_text(textwrap.dedent(source))
        made.append(Program(path))
        return made[-1]

    yield make
    for one in made:
        for process in one.processes():
            process.kill()
