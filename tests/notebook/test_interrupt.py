"""Interrupt in a real kernel: it stops work on the cluster, and the kernel goes on."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

jupyter_client = pytest.importorskip("jupyter_client")
pytest.importorskip("ipykernel")

pytestmark = pytest.mark.slow

_WAIT_SECONDS = 120


class Kernel:
    """A kernel, one cell after the other."""

    def __init__(self, manager: Any, client: Any) -> None:
        self._manager = manager
        self._client = client

    def start(self, source: str) -> str:
        return self._client.execute(source, store_history=False)

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def reply(self, message_id: str) -> dict[str, Any]:
        """Wait for the end of a cell; return the content of the kernel's reply."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                reply = self._client.get_shell_msg(timeout=1)
            except queue.Empty:
                continue
            if reply["parent_header"].get("msg_id") == message_id:
                return reply["content"]
        raise AssertionError("the cell has not ended")

    def run(self, source: str) -> dict[str, Any]:
        return self.reply(self.start(source))

    def check(self, expression: str) -> str:
        """Return the text of an expression's value."""
        message = self._client.execute(
            "", user_expressions={"found": expression}, store_history=False
        )
        found = self.reply(message)["user_expressions"]["found"]
        assert found["status"] == "ok", found
        return found["data"]["text/plain"]


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    manager, client = jupyter_client.manager.start_new_kernel(kernel_name="python3")
    try:
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=False)


def test_interrupt_stops_what_runs_and_the_kernel_goes_on(kernel: Kernel, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    done = kernel.run(
        f"""
import operator, pathlib
import agentic_ray as ar
session = ar.init(num_cpus=2)

def spin(x):
    pathlib.Path({str(begun)!r}).touch()
    while True:
        pass
"""
    )
    assert done["status"] == "ok", done
    cell = kernel.start("ar.map_reduce(spin, range(4), operator.add)")
    _wait_until(begun.exists)
    kernel.interrupt()
    ended = kernel.reply(cell)
    assert ended["status"] == "error"
    assert ended["ename"] == "KeyboardInterrupt"
    _wait_until(lambda: kernel.check("session.under_way()") == "[]")
    assert kernel.check("ar.map_reduce(abs, [-1, 2, -3], operator.add)") == "6"


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
