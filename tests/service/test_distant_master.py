"""A master in another process, served over HTTP: either may be killed and come back.

Ray is left out: the process has what would be the actor, and a gateway to it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentic_ray import Client
from agentic_ray.errors import (
    AgenticRayError,
    InvalidParametersError,
    SessionError,
    UnknownJobError,
    UnknownWorkloadError,
)
from agentic_ray.ids import Ids
from agentic_ray.master import distant
from agentic_ray.master.distant import DistantMaster
from agentic_ray.master.jobs import JobRecord
from agentic_ray.master.steps import Position, Steps
from agentic_ray.service.http import create_app
from agentic_ray.telemetry import ClusterState

from .serving import served, stream

MASTER = """
import sys, threading

from agentic_ray.master.actor import MasterActor, Packed
from agentic_ray.master.gateway import Gateway

class Here(MasterActor):
    def _release_held_cpus(self):
        pass  # there are none without Ray

    def ask(self, method, *arguments):
        return getattr(self, method)(*arguments)

path, journal, workloads = sys.argv[1:]
import cloudpickle
actor = Here(journal, Packed(cloudpickle.dumps({}), {}), [workloads], {})
actor.pid()
Gateway(path, actor)
print("ready", flush=True)
sys.stdin.read()
"""

WORKLOADS = """
import os, time
import agentic_ray as ar

def note(name):
    log = os.open(os.environ["RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{name}\\n".encode())
    os.close(log)

@ar.workload("double", cache=False)
def double(params: int) -> int:
    "Twice the number."
    note(params)
    time.sleep(0.005)
    return 2 * params

@ar.workload("letters")
def letters(params: int) -> str:
    print("some letters")
    return "x" * params
"""


class Machine:
    """What outlives the processes: the journal, and where they meet."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.path = str(folder / "gate")
        (folder / "master.py").write_text(MASTER)
        (folder / "workloads.py").write_text(WORKLOADS)
        monkeypatch.setenv("RUNS", str(folder / "runs"))
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        Path(self.path).unlink(missing_ok=True)
        told = [self.path, str(self.folder / "journal"), str(self.folder / "workloads.py")]
        self.process = subprocess.Popen(
            [sys.executable, str(self.folder / "master.py"), *told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.communicate()

    @contextmanager
    def service(self) -> Iterator[tuple[str, DistantMaster]]:
        master = DistantMaster(self.path, "of a test")
        app = create_app(
            master,
            cluster=lambda: ClusterState((), 0.0),
            health=lambda: ("degraded" if master.reason else "ok", master.reason),
        )
        try:
            with served(app) as url:
                yield url, master
        finally:
            master.close()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(tmp_path, monkeypatch)
    made.start()
    yield made
    made.kill()


def until(condition: Callable[[], Any]) -> Any:
    for _ in range(6000):
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("waited too long")


def test_all_that_the_service_asks_is_answered(machine: Machine) -> None:
    with machine.service() as (url, master), Client(url) as client:
        until(lambda: "double" in master.workloads.snapshot())
        task_id = client.submit(4, workload="double", tags=["a"], user="ada")
        assert client.result(task_id) == 8
        assert client.status(task_id)["user"] == "ada"
        long = client.submit(200_000, workload="letters")  # its result is kept apart
        assert client.result(long) == "x" * 200_000
        assert [line["text"] for line in client.logs(long)[0]] == ["some letters"]
        again = httpx.post(f"{url}/submit", json={"workload": "letters", "params": 200_000}).json()
        assert again["cached"] is True
        repeated = client.retry(task_id)
        assert client.result(repeated) == 8
        assert {job["task_id"] for job in client.jobs(workload="double")} == {task_id, repeated}
        assert httpx.get(f"{url}/jobs?limit=1").json()["total"] == 4
        told = {each["name"]: each for each in client.workloads()}
        assert told["double"]["description"] == "Twice the number."
        assert told["double"]["schema"]["type"] == "integer"
        assert told["matmul"]["builtin"]
        assert client.cancel(task_id)["state"] == "succeeded"
        assert "agentic_ray_jobs_finished_total" in httpx.get(f"{url}/metrics").text
        assert httpx.get(f"{url}/view/jobs/{task_id}/trace").json()["items_total"] == 0
        with pytest.raises(InvalidParametersError, match="params"):
            client.submit("x", workload="double")
        with pytest.raises(UnknownWorkloadError):
            client.submit(1, workload="none")
        with pytest.raises(UnknownJobError):
            client.status("none")
        with httpx.Client(base_url=url) as http, stream(http, "/events") as events:
            seen = iter(events)
            assert next(seen)[0] == "hello"
            last = client.submit(5, workload="double")
            steps = (data for kind, data, _ in seen if kind == "job")
            states = [next(steps) for _ in range(3)]
            assert [one["state"] for one in states] == ["queued", "running", "succeeded"]
            assert {one["task_id"] for one in states} == {last}
        with pytest.raises(SessionError, match="no call 'close'"):
            master._call("close")


@pytest.mark.slow
def test_master_and_service_are_killed_under_load_and_every_job_ends_once(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distant, "_LATE_SECONDS", 3.0)
    acknowledged: dict[int, str] = {}
    numbers = iter(range(100_000))
    lock = threading.Lock()
    over = threading.Event()
    address = [""]

    def submit() -> None:
        while not over.is_set():
            with lock:
                n = next(numbers)
            while not over.is_set():
                try:
                    with Client(address[0], timeout=5) as client:
                        task_id = client.submit(n, workload="double", idempotency_key=f"k{n}")
                    with lock:
                        acknowledged[n] = task_id
                    break
                except AgenticRayError:  # nobody there, or no master: with its key it is safe
                    time.sleep(0.05)

    clients = [threading.Thread(target=submit) for _ in range(4)]
    with machine.service() as (first, _):
        address[0] = first
        for client in clients:
            client.start()
        with httpx.Client(base_url=first) as http, stream(http, "/events?kinds=job") as events:
            kinds = (kind for kind, _, _ in events)
            until(lambda: len(acknowledged) > 40)
            machine.kill()
            until(lambda: httpx.get(f"{first}/readyz").status_code == 503)
            assert "does not answer" in httpx.get(f"{first}/healthz").json()["reason"]
            assert httpx.get(f"{first}/jobs", timeout=60).status_code == 503
            machine.start()
            until(lambda: httpx.get(f"{first}/readyz").status_code == 200)
            assert "reset" in kinds  # who follows is told that steps were missed
        many = len(acknowledged)
        until(lambda: len(acknowledged) > many + 40)
    # The service is gone; jobs that were accepted go on, and another service finds them.
    with machine.service() as (second, _):
        address[0] = second
        many = len(acknowledged)
        until(lambda: len(acknowledged) > many + 20)
        over.set()
        for client in clients:
            client.join()
        with Client(second) as one:
            for n, task_id in acknowledged.items():
                assert one.result(task_id) == 2 * n
        assert len(set(acknowledged.values())) == len(acknowledged)
        told = httpx.get(f"{second}/metrics").text
        assert 'jobs_finished_total{state="failed"} 0.0' in told
    runs = Counter(map(int, (machine.folder / "runs").read_text().split()))
    assert set(acknowledged) <= set(runs)
    # Only what ran, or was about to be written as ended, when the master died ran once more.
    assert sum(many > 1 for many in runs.values()) <= 8
    assert max(runs.values()) <= 2


def record(number: int) -> JobRecord:
    return JobRecord(f"job{number}", "w", "1", {"p": 1}, 0, number, 0.0, result="r")


def test_steps_are_told_in_order_and_what_is_lost_is_said() -> None:
    steps = Steps(kept=5)
    steps.add(record(0))
    start, found, lost = steps.after(None, 0)
    assert (found, lost) == ([], False)
    for n in range(1, 4):
        steps.add(record(n))
    position, found, lost = steps.after(start, 0)
    assert ([one.sequence for one in found], lost) == ([1, 2, 3], False)
    assert all(one.result is None and one.params != {"p": 1} for one in found)
    assert steps.after(position, 0) == (position, [], False)
    for n in range(4, 12):
        steps.add(record(n))
    _, found, lost = steps.after(position, 0)
    assert ([one.sequence for one in found], lost) == ([7, 8, 9, 10, 11], True)
    _, found, lost = steps.after(Position("another", 3), 0)
    assert (found, lost) == ([], True)


def test_who_waits_for_a_step_is_woken() -> None:
    steps = Steps()
    start, _, _ = steps.after(None, 0)
    threading.Timer(0.1, steps.add, [record(1)]).start()
    assert [one.sequence for one in steps.after(start, 30)[1]] == [1]


def test_ids_of_a_request_reach_the_master_and_its_jobs(machine: Machine) -> None:
    parent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    with machine.service() as (url, master):
        until(lambda: not master.reason)
        answer = httpx.post(
            f"{url}/submit",
            json={"workload": "letters", "params": 2},
            headers={"X-Request-ID": "far", "traceparent": parent},
        )
        assert answer.headers["X-Request-ID"] == "far"
        task_id = answer.json()["task_id"]
        until(lambda: master.outline(task_id).state.finished)
        assert master.outline(task_id).ids == Ids("far", task_id, "", parent)
        lines = httpx.get(f"{url}/logs/{task_id}").json()["lines"]
        assert [(line["text"], line["request"]) for line in lines] == [("some letters", "far")]
        again = httpx.post(f"{url}/retry/{task_id}", headers={"X-Request-ID": "again"}).json()
        assert master.outline(again["task_id"]).request_id == "again"
