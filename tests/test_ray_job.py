"""Jobs sent to, and sessions that join, a local ``ray start --head`` that asks for a token.

The cluster is the test's own: free ports, a temporary directory of its own, and only its own
processes are ended (never ``ray stop``, which ends those of every cluster on the machine).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[1]
RAY = str(Path(sys.executable).with_name("ray"))
START_SECONDS = 90
STARTS = 3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True, slots=True)
class Head:
    dashboard: str
    environment: dict[str, str]
    gcs: str
    client: str


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head node that takes jobs. On a busy machine a part of it may be too late for another,
    which then ends; so it is started up to three times."""
    with contextlib.ExitStack() as stack:
        for _ in range(STARTS):
            found = stack.enter_context(started())
            if found is not None:
                break
        assert found is not None, "no head took a job"
        yield found


@contextlib.contextmanager
def started() -> Iterator[Head | None]:
    """A new head node; None if it does not take jobs."""
    # Short, because Ray's sockets have long names inside and the limit is 107 characters.
    folder = tempfile.mkdtemp(prefix="rayjob", dir="/tmp")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    token = secrets.token_hex(32)
    environment |= {"RAY_TMPDIR": folder, "HOME": folder}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    # The job's `python` must be this one.
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    port, dashboard, client = free_ports(3)
    with (
        open(Path(folder) / "head.log", "w+b") as log,
        subprocess.Popen(
            [
                *(RAY, "start", "--head", "--block", "--num-cpus=2"),
                *(f"--port={port}", f"--temp-dir={folder}", "--object-store-memory=200000000"),
                *("--include-dashboard=true", f"--dashboard-port={dashboard}"),
                *("--dashboard-agent-listen-port=0", f"--ray-client-server-port={client}"),
                "--disable-usage-stats",
            ],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            made = Head(
                f"http://127.0.0.1:{dashboard}",
                environment,
                f"127.0.0.1:{port}",
                f"ray://127.0.0.1:{client}",
            )
            deadline = time.monotonic() + START_SECONDS
            ready = False
            while not ready and process.poll() is None and time.monotonic() < deadline:
                ready = answers(f"{made.dashboard}/api/jobs/", token) and takes_jobs(made)
                time.sleep(0.5)
            if not ready:
                print(Path(log.name).read_text())
            yield made if ready else None
        finally:
            process.terminate()  # `ray start --block` then ends the processes it started
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)


def answers(url: str, token: str) -> bool:
    try:
        return httpx.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=5).is_success
    except httpx.HTTPError:
        return False


def takes_jobs(head: Head) -> bool:
    """Whether a job that does nothing ends well: the agent that runs jobs comes last."""
    command = [RAY, "job", "submit", "--address", head.dashboard, "--", "true"]
    try:
        done = subprocess.run(
            command, env=head.environment, capture_output=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def submit(head: Head, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RAY, "job", "submit", "--address", head.dashboard, "--working-dir", ".", "--", *command],
        cwd=ROOT,
        env=head.environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_an_example_runs_as_a_job(head: Head) -> None:
    done = submit(head, "python", "examples/option_price.py", "--paths", "2000000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2,097,152 paths: " in done.stdout
    assert "succeeded" in done.stdout


def test_a_failing_script_is_a_failed_job(head: Head) -> None:
    done = submit(head, "python", "examples/word_count.py", "no-such-file.txt")
    assert done.returncode != 0
    assert "no-such-file.txt does not exist" in done.stdout + done.stderr


# --- joining it ------------------------------------------------------------------------------


def program(head: Head, source: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run ``source`` with the head's environment and these changes; it may not hang."""
    changed = {**head.environment, **environment}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        env={name: value for name, value in changed.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


REFUSED = """
    import time
    import ray
    import agentic_ray as ar
    from agentic_ray.errors import AgenticRayError
    began = time.monotonic()
    try:
        ar.init({address!r}, **{options!r})
    except AgenticRayError as error:
        print(type(error).__name__, error)
        assert not ray.is_initialized()
        assert time.monotonic() - began < 30, "it took long"
    else:
        raise AssertionError("it was joined")
"""


@pytest.mark.parametrize(
    ("place", "words", "changes"),
    [
        ("dashboard", "not the head of a Ray cluster; the port of a head (GCS) is 6379", {}),
        ("gcs", "asks for another token", {"RAY_AUTH_TOKEN": "f" * 64}),
        ("gcs", "RAY_AUTH_TOKEN", {"RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN": None}),
        ("client", "cannot run through Ray Client", {}),
    ],
)
def test_a_wrong_address_or_token_is_one_sentence(
    head: Head, place: str, words: str, changes: dict[str, str | None]
) -> None:
    address = str(getattr(head, place)).removeprefix("http://")
    done = program(head, REFUSED.format(address=address, options={}), **changes)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert len(done.stderr.splitlines()) <= 3, done.stderr  # no lines of Ray's core


def test_settings_of_an_embedded_ray_are_refused_on_a_cluster(head: Head) -> None:
    for options in ({"num_cpus": 2}, {"object_store_memory_bytes": 1 << 28}):
        done = program(head, REFUSED.format(address=head.gcs, options=options))
        assert done.returncode == 0, done.stderr
        assert next(iter(options)) in done.stdout
        assert "share=" in done.stdout


def test_a_session_joins_and_keeps_its_settings(head: Head) -> None:
    done = program(
        head,
        f"""
        import operator
        import agentic_ray as ar
        from agentic_ray.errors import SessionError
        session = ar.init({head.gcs!r}, share=0.5)
        assert ar.init() is ar.init({head.gcs!r}) is ar.init(share=0.5) is session
        for options in ({{"share": 1.0}}, {{"policy": "round_robin"}}, {{"poll_seconds": 9.0}}):
            try:
                ar.init(**options)
            except SessionError as error:
                assert next(iter(options)) in str(error) and "shutdown" in str(error)
            else:
                raise AssertionError(options)
        assert ar.map_reduce(abs, [-1, 2], operator.add) == 3
        print("fine")
        """,
    )
    assert "fine" in done.stdout, done.stderr


def test_the_doctor_examines_a_cluster(head: Head) -> None:
    command = [sys.executable, "-m", "agentic_ray.cli", "doctor", "--json", "--address"]
    done = [
        subprocess.run(
            [*command, address],
            env=head.environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        for address in (head.gcs, "127.0.0.1:1")
    ]
    joined, refused = ({check["name"]: check for check in json.loads(d.stdout)} for d in done)
    assert joined["ray"]["level"] == "ok"
    assert "1 node" in joined["ray"]["found"]
    assert refused["ray"]["level"] == "fail"
    assert done[1].returncode == 1
    assert "nothing listens there" in refused["ray"]["found"]
    assert "ray status --address 127.0.0.1:1" in refused["ray"]["advice"]


def test_work_through_ray_client_says_how_to_do_it(head: Head) -> None:
    done = program(
        head,
        f"""
        import operator
        import ray
        import agentic_ray as ar
        from agentic_ray.errors import SessionError
        for left in (2, 1, 0):
            try:
                ray.init({head.client!r}, logging_level="ERROR")
                break
            except ConnectionAbortedError:  # Ray's server for clients was late to start
                if not left:
                    raise
        def add_up():
            return ar.map_reduce(abs, [1] * 10**5, operator.add)
        for use in (lambda: ar.init(), lambda: ar.cluster(), add_up):
            try:
                use()
            except SessionError as error:
                assert "Ray Client" in str(error) and "ray job submit" in str(error), error
            else:
                raise AssertionError("it went through")
        print("fine")
        """,
    )
    assert "fine" in done.stdout, done.stderr
