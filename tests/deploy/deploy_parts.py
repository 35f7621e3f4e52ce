"""Processes that the tests of this folder start; a mark finds, and ends, all that came of them."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

_MARK = "AGENTIC_RAY_TEST_MARK"


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


def until(condition: Callable[[], Any], about: str, seconds: float = 120) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {about}"
        time.sleep(0.05)


def surroundings() -> dict[str, str]:
    """The environment, without what would make a Ray of the test join another one."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "AGENTIC_RAY_"))
    }
    return own | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "AGENTIC_RAY_KEEP_COSTS": "0",
        # On a machine that is busy with other tests a node is slow, not dead.
        "RAY_health_check_timeout_ms": "60000",
        "RAY_health_check_failure_threshold": "20",
    }


@dataclass
class Part:
    """A process and all that it starts."""

    command: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**self.environment, _MARK: self.mark},
            )

    def processes(self) -> list[psutil.Process]:
        """What runs of it now."""
        found = []
        for process in psutil.process_iter():
            try:
                # A program that gives itself a title, as Redis does, may overwrite its environment.
                ours = process.pid == self.process.pid or process.environ().get(_MARK) == self.mark
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def kill(self) -> None:
        """End all of it at once, as when a machine loses its power."""
        while found := self.processes():
            for process in found:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(found, timeout=5)
        self.process.wait(30)

    def wait_for_the_end(self, seconds: float = 60) -> None:
        """Wait until nothing of it runs."""
        deadline = time.monotonic() + seconds
        while left := self.processes():
            names = [" ".join(one.cmdline())[:150] for one in left if one.is_running()]
            assert time.monotonic() < deadline, f"still there: {names}"
            time.sleep(0.1)

    def told(self) -> str:
        """The end of what it printed, without what Ray's core says of its state when it dies."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if "[state-dump]" not in line)[-6000:]
