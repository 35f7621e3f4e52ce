"""`agentic-ray top`: its screen with Textual's pilot, and the command in a real terminal."""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("textual", reason="needs the extra agentic-ray[top]")

from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from agentic_ray.cli.board import Board, LogScreen, Question
from agentic_ray.cli.rows import COLUMNS, job_rows, node_rows
from agentic_ray.errors import ServiceError
from agentic_ray.telemetry.state import ClusterState, GpuState, NodeState

GIB = 2**30
_GPU = GpuState("GPU-1", 0, "A card", 40 * GIB, 10 * GIB, utilization=0.5)
_NODE = NodeState(
    *("a" * 40, "first", 8.0, 2.0),
    gpus=(_GPU,),
    host_memory_total_bytes=16 * GIB,
    host_memory_free_bytes=4 * GIB,
)
CLUSTER = json.loads(json.dumps(ClusterState((_NODE,), 0.0).to_dict()))


def job(number: int, state: str = "running", workload: str = "sums") -> dict[str, Any]:
    begun = None if state == "queued" else 1_000.0 + number
    ended = None if state in ("queued", "running") else 1_005.0 + 2 * number
    return {
        "task_id": f"{number:032x}",
        "state": state,
        "workload": workload,
        "user": "ann",
        "created_at": 1_000.0 + number,
        "started_at": begun,
        "finished_at": ended,
    }


class Service:
    """A service in this process."""

    def __init__(self) -> None:
        self.known = [job(1, "succeeded"), job(2, "running", "trains"), job(3, "queued")]
        self.cancelled: list[str] = []
        self.trouble = ""

    def cluster(self) -> dict[str, Any]:
        if self.trouble:
            raise ServiceError(self.trouble)
        return CLUSTER

    def jobs(self) -> list[dict[str, Any]]:
        return list(self.known)

    def cancel(self, task_id: str) -> dict[str, Any]:
        self.cancelled.append(task_id)
        self.known = [one | {"state": "cancelled"} if one["task_id"] == task_id else one
                      for one in self.known]  # fmt: skip
        return {}

    def logs(self, task_id: str) -> list[str]:
        return [f"line {n} of [{int(task_id, 16)}]" for n in range(3)]


def driven(service: Service, steps: Callable[[Pilot[None], Board], Awaitable[None]]) -> None:
    """Run the screen at 80 x 24 and drive it."""

    async def go() -> None:
        board = Board(service, "http://here", every=0.3)
        async with board.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: len(_jobs(board)) == len(service.known))
            await steps(pilot, board)

    asyncio.run(go())


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it has not come to be"
        await pilot.pause(0.02)


def _table(board: Board, name: str) -> list[list[str]]:
    found = board.screen_stack[0].query_one(name, DataTable)
    return [[str(cell) for cell in found.get_row_at(i)] for i in range(found.row_count)]


def _jobs(board: Board) -> list[list[str]]:
    return _table(board, "#jobs")


def _states(board: Board) -> list[str]:
    return [row[0] for row in _jobs(board)]


def test_the_screen_shows_nodes_cards_and_the_newest_jobs_first() -> None:
    async def steps(pilot: Pilot[None], board: Board) -> None:
        assert _table(board, "#nodes") == [
            ["first aaaaaaaa", "██████░░ 6/8", "██████░░ 12 GiB", "alive"],
            ["  0: A card", "████░░░░ 50%", "██████░░ 30 GiB", "healthy"],
        ]
        assert _states(board) == ["queued", "running", "succeeded"]
        head = str(board.query_one("#head", Static).render())
        assert head == "http://here  |  1 node, 1 GPU  |  1 running, 1 queued"

    driven(Service(), steps)


def test_keys_sort_reverse_and_filter() -> None:
    service = Service()

    async def steps(pilot: Pilot[None], board: Board) -> None:
        seen = []
        for _ in COLUMNS:
            await pilot.press("s")
            seen.append(board._sorted_by)
        assert seen == ["ran", "id", "state", "workload", "user", "submitted"]
        await pilot.press("r")
        assert _states(board) == ["succeeded", "running", "queued"]
        await pilot.press("slash", *"train")
        assert _states(board) == ["running"]
        service.known.append(job(4, "failed", "trains"))
        await until(pilot, lambda: _states(board) == ["running", "failed"])
        await pilot.press("enter", "escape")
        assert len(_jobs(board)) == 4

    driven(service, steps)


def test_a_job_is_cancelled_only_after_a_yes() -> None:
    service = Service()

    async def steps(pilot: Pilot[None], board: Board) -> None:
        await pilot.press("down", "c")
        await until(pilot, lambda: isinstance(board.screen, Question))
        await pilot.press("n")
        assert service.cancelled == []
        await pilot.press("c")
        await until(pilot, lambda: isinstance(board.screen, Question))
        await pilot.press("y")
        await until(pilot, lambda: service.cancelled == [f"{2:032x}"])
        await until(pilot, lambda: "cancelled" in _states(board))

    driven(service, steps)


def test_the_cursor_stays_on_its_job_while_others_come() -> None:
    service = Service()

    async def steps(pilot: Pilot[None], board: Board) -> None:
        await pilot.press("down")
        assert board._chosen() == f"{2:032x}"
        service.known += [job(n) for n in range(10, 15)]
        await until(pilot, lambda: len(_jobs(board)) == 8)
        assert board._chosen() == f"{2:032x}"

    driven(service, steps)


def test_the_log_of_a_job_is_shown_and_left_again() -> None:
    async def steps(pilot: Pilot[None], board: Board) -> None:
        await pilot.press("l")
        await until(pilot, lambda: isinstance(board.screen, LogScreen))
        await until(pilot, lambda: bool(board.screen.query("#log")))
        shown = str(board.screen.query_one("#log", Static).render())
        assert shown.splitlines() == [f"line {n} of [3]" for n in range(3)]
        await pilot.press("escape")
        assert not isinstance(board.screen, LogScreen)

    driven(Service(), steps)


def test_what_the_service_refuses_is_told_and_the_screen_goes_on() -> None:
    service = Service()

    def head(board: Board) -> str:
        return str(board.query_one("#head", Static).render())

    async def steps(pilot: Pilot[None], board: Board) -> None:
        service.trouble = "the service [gone] does not answer"
        await until(pilot, lambda: head(board) == service.trouble)
        service.trouble = ""
        await until(pilot, lambda: head(board).startswith("http://here"))
        assert len(_jobs(board)) == 3

    driven(service, steps)


@given(
    st.lists(st.integers(0, 30), unique=True),
    st.sampled_from(list(COLUMNS)),
    st.booleans(),
    st.sampled_from(["", "ann", "RUN", "queued sums", "nobody"]),
)
def test_rows_are_the_jobs_with_all_words_in_order(
    numbers: list[int], column: str, is_reversed: bool, words: str
) -> None:
    states = ("queued", "running", "failed")
    jobs = [job(number, states[number % 3]) for number in numbers]
    rows = job_rows(jobs, column, is_reversed, words)
    by_id = {one["task_id"]: one for one in jobs}
    values = [COLUMNS[column](by_id[row.task_id]) for row in rows if column != "ran"]
    assert values == sorted(values, reverse=is_reversed)
    texts = {i: f"{one['state']} sums ann {i}".lower() for i, one in by_id.items()}
    wanted = {i for i, text in texts.items() if all(w in text for w in words.lower().split())}
    assert {row.task_id for row in rows} == wanted


def test_what_could_not_be_read_is_a_question_mark() -> None:
    bare = NodeState("b" * 40, "bare", 0.0, 0.0, alive=False, gpus=(GpuState("G", 0, "B"),))
    rows = node_rows(ClusterState((bare,), 0.0).to_dict())
    assert rows == [
        ("bare bbbbbbbb", "░░░░░░░░ 0/0", "?", "dead"),
        ("  0: B", "?", "?", "healthy"),
    ]


# --- in a terminal -------------------------------------------------------------------------


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        known = {"/cluster": CLUSTER, "/jobs": {"jobs": Service().known}}
        body = json.dumps(known[path]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_it_runs_in_a_terminal_of_80_by_24_and_quits(url: str) -> None:
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "agentic_ray.cli", "top", "--url", url, "--every", "0.2"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color", "NO_COLOR": "1"},
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    quits = False
    deadline = time.monotonic() + 120
    try:
        while process.poll() is None and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    seen += os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
            if not quits and b"trains" in seen and b"first aaaaaaaa" in seen:
                os.write(ours, b"q")
                quits = True
        assert process.wait(60) == 0, seen[-2000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)
    assert quits, seen[-2000:]
    assert "1 node, 1 GPU" in seen.decode(errors="replace")
