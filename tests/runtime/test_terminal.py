"""Programs in a terminal: Ctrl-C, SIGTERM, the end; the progress bar; what is left running."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.slow
Make = Callable[[str], Any]

LONG = """
    import operator, sys, time
    import agentic_ray as ar
    ar.init(num_cpus=2)
    assert ar.map_reduce(abs, [-1, 2], operator.add) == 3
    print("working", flush=True)
    ar.map_reduce(lambda x: time.sleep(0.2) or x, range(100_000), operator.add)
"""
LONG_TWICE = """
    import operator, sys, time
    import agentic_ray as ar
    ar.init(num_cpus=2)
    print("working", flush=True)
    try:
        ar.map_reduce(lambda x: time.sleep(0.2) or x, range(100_000), operator.add)
    except KeyboardInterrupt:
        print("again", ar.map_reduce(abs, [-1, 2], operator.add), flush=True)
    ar.map_reduce(lambda x: time.sleep(0.2) or x, range(100_000), operator.add)
"""
LONG_CODELET = """
    import operator, sys, time
    import numpy as np
    import agentic_ray as ar
    ar.init(num_cpus=2)
    @ar.codelet
    def work(block):
        time.sleep(0.2)
        return 0
    print("working", flush=True)
    ar.map_reduce(work, np.arange(100_000.0), operator.add, chunk_size=1)
"""


class Terminal:
    """A program under a pseudo-terminal that it has as its controlling one."""

    def __init__(self, program: Any) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:  # the child
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests may ignore it
            os.execve(sys.executable, [sys.executable, str(program.path)], program.environment)
        self.output = ""
        self.status: int | None = None

    def read(self, seconds: float, until: str | None = None) -> str:
        """Read for so long, or until the text appears or the program ends."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not (until is not None and until in self.output):
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    self.output += os.read(self.master, 65536).decode(errors="replace")
                except OSError:  # the other end is closed
                    break
            elif self.ended():
                break
        return self.output

    def ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def wait(self, seconds: float) -> int:
        deadline = time.monotonic() + seconds
        while not self.ended():
            assert time.monotonic() < deadline, f"still running: {self.output[-2000:]}"
            self.read(0.1)
        assert self.status is not None
        return self.status

    def interrupt(self) -> None:
        """What the terminal does for Ctrl-C: SIGINT to its foreground process group."""
        os.write(self.master, b"\x03")


def interrupt_to_the_end(terminal: Terminal) -> None:
    """Ctrl-C, which ends the program."""
    terminal.interrupt()
    # 1: `import ray` alone makes Python end so
    assert terminal.wait(60) in (-signal.SIGINT, 130, 1)
    assert "KeyboardInterrupt" in terminal.output


def test_after_ctrl_c_the_session_goes_on_and_the_next_ends_all(program: Make) -> None:
    one = program(LONG_TWICE)
    terminal = Terminal(one)
    assert "working" in terminal.read(60, until="working")
    terminal.read(1.0)
    terminal.interrupt()
    assert "again 3" in terminal.read(90, until="again 3")
    terminal.read(1.0)
    interrupt_to_the_end(terminal)
    assert one.leftovers() == []


def test_ctrl_c_in_a_codelet_ends_the_program_and_everything_it_started(program: Make) -> None:
    one = program(LONG_CODELET)
    terminal = Terminal(one)
    assert "working" in terminal.read(60, until="working")
    terminal.read(1.5)
    interrupt_to_the_end(terminal)
    assert one.leftovers() == []


def test_a_signal_ends_everything(program: Make) -> None:
    """Two programs at a time, because of the wait at the end: an agent of Ray's that is told
    nothing looks for its dead head for up to a minute."""
    signals = (signal.SIGTERM, signal.SIGKILL)
    programs = [program(LONG) for _ in signals]
    processes = [
        subprocess.Popen(
            [sys.executable, str(one.path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=one.environment,
        )
        for one in programs
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "working"
    time.sleep(0.5)
    for process, number in zip(processes, signals, strict=True):
        process.send_signal(number)
        process.wait(timeout=60)
        assert process.returncode != 0
    for one in programs:
        assert one.leftovers(seconds=100) == []


BAR = """
    import operator, time
    import agentic_ray as ar
    ar.init(num_cpus=2)
    ar.map_reduce(lambda x: time.sleep(0.05), range(8))  # the processes are there now
    print("<short>", flush=True)
    ar.map_reduce(lambda x: time.sleep(0.05), range(8))
    print("<long>", flush=True)
    ar.map_reduce(lambda x: time.sleep(0.1), range(100))
    print("<end>", flush=True)
"""


def test_the_bar_appears_in_a_terminal_and_only_on_long_work(program: Make) -> None:
    terminal = Terminal(program(BAR))
    assert "<long>" in terminal.read(60, until="<long>")
    assert "map_reduce" not in terminal.output.partition("<short>")[2]
    started = time.monotonic()
    terminal.read(20, until="/100")
    assert time.monotonic() - started > 1.5
    terminal.read(30, until="<end>")
    assert terminal.wait(90) == 0
    assert re.search(r"map_reduce.*\d+/100", terminal.output)


def test_there_is_no_bar_without_a_terminal_and_a_normal_end_leaves_nothing(program: Make) -> None:
    one = program(BAR)
    assert one.run().split() == ["<short>", "<long>", "<end>"]
    assert one.leftovers() == []
