"""A real ``agentic-ray serve --journal`` is killed at injected points and random moments.

Ray is left out of the server: it has no part in what is shown here, and takes seconds to start.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest

from agentic_ray import Client
from agentic_ray.errors import AgenticRayError

SERVER = """
import os, signal, sys

from agentic_ray.cli import main
from agentic_ray.master import database, journal
from agentic_ray.service import hosting

hosting.SessionHost.start = lambda self: self._become("ok")
point, _, left = os.environ["CRASH"].partition(":")
left = int(left or 0)

def reach(name):
    global left
    if name == point:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

commit, change = journal.Journal._commit, database._SqliteTransaction.change

def patched_commit(self, batch):
    if batch:
        reach("before the transaction")
    commit(self, batch)
    if batch:
        reach("written but not told")

def patched_change(self, statement, values):
    reach("within the transaction")
    return change(self, statement, values)

journal.Journal._commit = patched_commit
database._SqliteTransaction.change = patched_change
main(sys.argv[1:])
"""

WORKLOADS = """
import os, time
import agentic_ray as ar

def note(params):
    line = f"{params} {os.environ['ROUND']}\\n".encode()
    log = os.open(os.environ["STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line)
    os.close(log)
    time.sleep(0.003)
    return 2 * params

@ar.workload("again", cache=False)
def again(params: int) -> int:
    return note(params)

@ar.workload("once", effects=True)
def once(params: int) -> int:
    return note(params)
"""

POINTS = ("before the transaction", "written but not told", "within the transaction", "any time")


class Drill:
    """One journal, served and killed round after round, while clients submit and watch."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.numbers = itertools.count()
        self.lock = threading.Lock()
        self.acknowledged: dict[int, str] = {}
        self.seen_finished: dict[int, int] = {}
        self.slowest_start = 0.0
        (directory / "server.py").write_text(SERVER)
        (directory / "workloads.py").write_text(WORKLOADS)

    def serve(self, number: int, crash: str) -> tuple[subprocess.Popen[str], str]:
        began = time.monotonic()
        process = subprocess.Popen(
            [
                *(sys.executable, str(self.directory / "server.py"), "serve", "--port", "0"),
                *("--workloads", str(self.directory / "workloads.py")),
                *("--journal", str(self.directory / "journal.sqlite3")),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "CRASH": crash,
                "ROUND": str(number),
                "STARTS": str(self.directory / "starts"),
            },
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        self.slowest_start = max(self.slowest_start, time.monotonic() - began)
        return process, line.removeprefix("serving on ").strip()

    def kill_once(self, number: int) -> None:
        point = POINTS[number % len(POINTS)]
        crash = f"{point}:{self.random.randint(20, 300)}" if point != "any time" else ""
        process, url = self.serve(number, crash)
        timer = threading.Timer(self.random.uniform(0.3, 1.0) if not crash else 20, process.kill)
        timer.start()
        clients = [threading.Thread(target=self.use, args=(url, number)) for _ in range(4)]
        for client in clients:
            client.start()
        assert process.wait(30) == -signal.SIGKILL
        timer.cancel()
        for client in clients:
            client.join(30)
        assert process.stdout is not None
        process.stdout.close()

    def use(self, url: str, number: int) -> None:
        """Submit and look, until the server is dead."""
        with Client(url, timeout=10) as client:
            try:
                while True:
                    n = next(self.numbers)
                    workload = "once" if n % 3 == 0 else "again"
                    task_id = client.submit(n, workload=workload, idempotency_key=f"key{n}")
                    with self.lock:
                        self.acknowledged[n] = task_id
                        old = self.random.choice(list(self.acknowledged.items()))
                    if client.status(old[1])["state"] in ("succeeded", "failed"):
                        with self.lock:
                            self.seen_finished.setdefault(old[0], number)
            except AgenticRayError:
                return  # killed in the middle of a request: that one was not acknowledged

    def outcome(self, client: Client, task_id: str) -> object:
        """The result, or the error."""
        try:
            return client.result(task_id, 60)
        except AgenticRayError as error:
            return error

    def verify(self, number: int) -> None:
        process, url = self.serve(number, "")
        try:
            with Client(url) as client:
                for n, task_id in self.acknowledged.items():
                    told = self.outcome(client, task_id)
                    interrupted = n % 3 == 0 and "InterruptedJobError" in str(told)
                    assert interrupted or told == 2 * n
                some = self.random.sample(sorted(self.acknowledged), 20)
                for n in some:
                    workload = "once" if n % 3 == 0 else "again"
                    same = client.submit(n, workload=workload, idempotency_key=f"key{n}")
                    assert same == self.acknowledged[n]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert process.stdout is not None
            process.stdout.close()
        starts: dict[int, list[int]] = defaultdict(list)
        for line in (self.directory / "starts").read_text().splitlines():
            n, in_round = line.split()
            starts[int(n)].append(int(in_round))
        for n, seen in self.seen_finished.items():
            assert max(starts[n], default=0) <= seen, f"job {n} ran again after its end was told"
        for n, rounds in starts.items():
            assert len(rounds) == len(set(rounds)), f"job {n} ran twice in one life"
            assert n % 3 or len(rounds) <= 1, f"job {n} has effects and ran {len(rounds)} times"
        connection = sqlite3.connect(self.directory / "journal.sqlite3")
        ended = dict(connection.execute("SELECT id, finished FROM jobs"))
        connection.close()
        assert all(ended[task_id] for task_id in self.acknowledged.values())


def drill(directory: Path, kills: int) -> None:
    made = Drill(directory, seed=kills)
    for number in range(kills):
        made.kill_once(number)
    made.verify(kills)
    assert len(made.acknowledged) > 10 * kills
    assert made.seen_finished
    print(
        f"{kills} kills, {len(made.acknowledged)} jobs acknowledged, none lost; "
        f"slowest start {made.slowest_start:.2f} s"
    )


def test_ten_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    drill(tmp_path, 10)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    "AGENTIC_RAY_LONG" not in os.environ, reason="takes minutes; set AGENTIC_RAY_LONG=1"
)
def test_fifty_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    drill(tmp_path, 50)
