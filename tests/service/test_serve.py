"""`agentic-ray serve` as it is used: a real process, real sockets, real Ray, the real client."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_ray import Client
from agentic_ray.errors import (
    InvalidParametersError,
    JobCancelledError,
    JobTimeoutError,
    ServiceError,
    TaskError,
    UnknownJobError,
    UnknownWorkloadError,
)

WORKLOADS = """
import time
import agentic_ray as ar

FACTOR = 10

def scaled(x):
    return x * FACTOR

@ar.workload("scaled")
def scaled_sum(params: list[int]) -> int:
    return ar.map_reduce(scaled, params, lambda a, b: a + b, initial=0)

@ar.workload("slow")
def slow(params: int) -> int:
    def nap(x):
        time.sleep(0.05)
        return 1
    return ar.map_reduce(nap, range(params), lambda a, b: a + b)

@ar.workload("boom")
def boom(params) -> None:
    raise ValueError("on purpose")
"""

ON_TASK = """
from agentic_ray import worker

@worker.on_task
def on_task_received(task_data):
    return max(task_data["data"])
"""


class Server:
    """A running ``agentic-ray serve``."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "agentic_ray.cli", "serve", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--num-cpus", "2", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(r"serving on (http://\S+:(\d+))\n", line)
        assert found, line + (self.process.stderr.read() if self.process.stderr else "")
        self.url, self.port = found[1], int(found[2])

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """The exit code; fails if a process of it is left."""
        processes = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal_number)
        code = self.process.wait(20)
        _, alive = psutil.wait_procs(processes, timeout=90)  # as of tests/runtime
        assert not alive
        return code

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = tmp_path_factory.mktemp("workloads") / "mine.py"
    file.write_text(WORKLOADS)
    made = Server("--workloads", str(file))
    yield made
    made.kill()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as made:
        yield made


def test_the_seeds_two_requests(server: Server) -> None:
    body = b'{"data":[1,2,3,4,5]}'
    answer = httpx.post(
        f"{server.url}/submit", content=body, headers={"Content-Type": "application/json"}
    )
    task_id = answer.json()["task_id"]
    deadline = time.monotonic() + 60
    states = []
    while not states or states[-1] not in ("succeeded", "failed"):
        assert time.monotonic() < deadline
        status = httpx.get(f"{server.url}/status/{task_id}").json()
        states.append(status["state"])
        time.sleep(0.005)
    assert (status["state"], status["result"], status["task_id"]) == ("succeeded", 55, task_id)
    assert set(states) <= {"queued", "running", "succeeded"}


def test_the_client(client: Client) -> None:
    assert client.result(client.submit({"data": [1, 2, 3]}), 60) == 14
    assert client.result(client.submit({"data": np.arange(4)}), 60) == 14
    assert client.result(client.submit({"data": [10**200]}), 60) == 10**400
    assert client.result(client.submit({"data": []}), 60) == 0
    assert client.jobs(limit=2)[0]["state"] == "succeeded"
    # (not before: until Ray has started there is no cluster)
    assert client.cluster()["nodes"][0]["cpus_total"] == 2


def test_workloads_of_a_file_run_on_workers_that_cannot_import_it(client: Client) -> None:
    assert client.result(client.submit([1, 2, 3], workload="scaled"), 60) == 60


def test_the_clients_errors_are_typed(client: Client) -> None:
    with pytest.raises(InvalidParametersError, match=r"params\.data\[0\]"):
        client.submit({"data": ["x"]})
    with pytest.raises(InvalidParametersError, match="NaN"):
        client.submit({"data": [float("nan")]})
    with pytest.raises(UnknownWorkloadError, match="scaled"):
        client.submit({}, workload="nope")
    for ask in (client.status, client.cancel, client.result):
        with pytest.raises(UnknownJobError):
            ask("unknown")
        with pytest.raises(ServiceError, match="404"):
            ask("../healthz")
    with pytest.raises(TaskError, match="ValueError: on purpose"):
        client.result(client.submit(None, workload="boom"), 60)
    with pytest.raises(ServiceError, match="422"):
        client.jobs(limit=0)


def test_cancel_and_timeout_of_a_running_job(client: Client) -> None:
    task_id = client.submit(100_000, workload="slow")
    with pytest.raises(JobTimeoutError, match=r"after 0\.3 seconds"):
        client.result(task_id, 0.3)
    assert client.cancel(task_id)["cancel_requested"]
    with pytest.raises(JobCancelledError):
        client.result(task_id, 30)
    task_id = client.submit(100_000, workload="slow", timeout_seconds=0.3)
    with pytest.raises(TaskError, match="longer than its"):
        client.result(task_id, 30)


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with Client(url) as nobody, pytest.raises(ServiceError, match="agentic-ray serve"):
            nobody.status("x")


def exchange(server: Server, sent: bytes) -> tuple[int, Any]:
    """Status and JSON body of what the server answers to these bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(sent)
        answer = HTTPResponse(connection)
        answer.begin()
        return answer.status, json.loads(answer.read())


HEAD = b"POST /submit HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"GET / HTTP/9\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 421),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 99999999999\r\n\r\n", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"\r\n", 400),  # no body
        (HEAD + b"X: " + b"x" * 100_000 + b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
    ],
)
def test_malformed_requests_get_a_json_refusal(server: Server, sent: bytes, status: int) -> None:
    answered, body = exchange(server, sent)
    assert (answered, set(body["error"])) == (status, {"type", "message"})


def test_a_body_that_never_ends_leaves_the_service_well(server: Server, client: Client) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(HEAD + b'Content-Length: 100\r\n\r\n{"data":')
    assert client.result(client.submit({"data": [2]}), 60) == 4


def test_a_body_too_large_is_refused(server: Server) -> None:
    body = b'{"data": [' + b"1," * (9 << 20) + b"1]}"
    with httpx.Client(base_url=server.url) as connection:
        try:
            answer = connection.post(
                "/submit", content=body, headers={"Content-Type": "application/json"}
            )
        except httpx.WriteError:
            return  # the refusal came, and the connection closed, before all was sent
    assert answer.status_code == 413


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "data": st.lists(st.integers() | st.text(max_size=3), max_size=4) | st.text(max_size=3),
            "workload": st.sampled_from(["default", "scaled", "nope"]),
            "params": st.none() | st.lists(st.integers(), max_size=3),
            "priority": st.integers(),
        },
    )
    | st.binary(max_size=40)
)
def test_nothing_sent_yields_a_server_error(server: Server, body: Any) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{server.url}/submit", content=content, headers=headers)
    assert answer.status_code < 500
    assert answer.status_code == 202 or "error" in answer.json()


@pytest.mark.slow
def test_on_task_replaces_the_default_and_a_token_protects(tmp_path: Path) -> None:
    file = tmp_path / "worker.py"
    file.write_text(ON_TASK)
    server = Server("--workloads", str(file), environment={"AGENTIC_RAY_TOKEN": "s3cret"})
    try:
        with Client(server.url, "s3cret") as client:
            assert client.result(client.submit({"data": [3, 9, 4]}), 60) == 9
        with Client(server.url, "wrong") as client, pytest.raises(ServiceError, match="401"):
            client.jobs()
        assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert server.stop(signal.SIGINT) == 130
    finally:
        server.kill()


@pytest.mark.slow
def test_sigterm_lets_accepted_jobs_finish_and_leaves_no_process(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(WORKLOADS + "\n\n" + MARK.format(directory=str(tmp_path)))
    server = Server("--workloads", str(file))
    try:
        with Client(server.url) as client:
            client.submit("one", workload="mark")
            deadline = time.monotonic() + 60
            while not client.jobs(state="running"):  # Ray has started
                assert time.monotonic() < deadline
                time.sleep(0.02)
        assert server.stop() == 0
        assert (tmp_path / "one").exists()
    finally:
        server.kill()


MARK = """
import pathlib

@ar.workload("mark")
def mark(params: str) -> None:
    time.sleep(1)
    (pathlib.Path({directory!r}) / params).touch()
"""


def refused(*arguments: str) -> str:
    command = [sys.executable, "-m", "agentic_ray.cli", "serve", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "AGENTIC_RAY_TOKEN"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_what_keeps_it_from_starting_is_told_at_once(server: Server, tmp_path: Path) -> None:
    assert "AGENTIC_RAY_TOKEN" in refused("--host", "0.0.0.0", "--port", "0")
    assert "in use" in refused("--port", str(server.port))
    assert "no Ray cluster can be joined" in refused("--port", "0", "--address", "127.0.0.1:1")
    file = tmp_path / "broken.py"
    file.write_text("1 / 0")
    assert "ZeroDivisionError" in refused("--port", "0", "--workloads", str(file))


def test_last_the_shared_server_ends_well(server: Server) -> None:
    assert server.stop() == 0
    assert server.process.stderr is not None
    # (Ray's own handler of signals would print where it was)
    assert "SIGTERM" not in server.process.stderr.read()
