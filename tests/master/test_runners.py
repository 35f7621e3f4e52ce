"""Jobs in processes of their own: what one of them does costs the others nothing. Without Ray."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentic_ray.errors import (
    InterruptedJobError,
    JobCancelledError,
    JobMemoryError,
    JobTimeoutError,
    PoisonJobError,
    SerializationError,
    TaskError,
    UnknownWorkloadError,
)
from agentic_ray.master import JobState, Master, Registry, load_workloads
from tests.support.waiting import until


class Own(Exception):
    pass


class Bad(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    def __reduce__(self) -> Any:
        raise ValueError("no pickle")


def echo(params: Any) -> Any:
    return params


def pid(params: Any) -> int:
    return os.getpid()


def leave(params: Any) -> None:
    os._exit(3)


def segv(params: Any) -> None:
    ctypes.string_at(0)


def sleep(params: Any) -> None:
    time.sleep(600)


def stuck(params: Any) -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")  # holds the GIL, and no signal is looked at


def leak(params: Any) -> None:
    held = []
    while True:
        held.append(b"x" * (1 << 20))


def own(params: Any) -> None:
    raise Own("on purpose")


def bad(params: Any) -> None:
    raise Bad


def long_message(params: int) -> None:
    raise ValueError("x" * params)


def talk(params: Any) -> None:
    print("out", params)
    print("err", file=sys.stderr)
    logging.getLogger("mine").info("logged")
    os.system("echo from a child")
    print("no end", end="")


def leave_a_child(params: Any) -> None:
    if os.fork() == 0:
        time.sleep(600)
    os._exit(4)


def environment(params: str) -> str | None:
    return os.environ.get(params)


def litter(params: Any) -> int:
    os.environ["LITTER"] = "1"
    os.chdir("/")
    if params == "thread":
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return os.getpid()


@pytest.fixture(scope="module")
def registry() -> Registry:
    made = Registry()
    for function in (
        *(echo, pid, leave, segv, sleep, stuck, own, bad, long_message, talk),
        *(environment, litter, leave_a_child),
    ):
        made.register(function.__name__, function, cache=False)
    made.register("leak", leak, cache=False, memory_bytes=100 << 20)
    made.register("pay", leave, effects=True)
    return made


@pytest.fixture(scope="module")
def master(registry: Registry) -> Iterator[Master]:
    made = Master(workloads=registry, runners=2, max_running=4)
    yield made
    made.close(drain=False)


def test_a_job_runs_in_another_process_that_is_used_again(master: Master) -> None:
    assert master.submit("echo", {"x": [1, None, "é"]}).result(60) == {"x": [1, None, "é"]}
    pids = {master.submit("pid", None).result(60) for _ in range(5)}
    assert len(pids) == 1
    assert os.getpid() not in pids


def test_what_it_raises_is_of_the_callers_own_class(master: Master) -> None:
    job = master.submit("own", None)
    with pytest.raises(Own, match="on purpose"):
        job.result(60)
    assert job.record.error is not None
    assert "in own" in job.record.error.traceback


@pytest.mark.parametrize(
    ("name", "how"),
    [("leave", "exit code 3"), ("segv", "SIGSEGV"), ("leave_a_child", "exit code 4")],
)
def test_a_job_that_ends_its_process_is_poison_after_three(
    master: Master, name: str, how: str
) -> None:
    job = master.submit(name, None)
    with pytest.raises(PoisonJobError, match=how):
        job.result(60)
    assert (job.record.attempts, job.record.deaths) == (3, 3)
    crashes = [line for line in job.logs() if "Segmentation fault" in line.text]
    assert len(crashes) == (3 if name == "segv" else 0)
    assert master.submit("echo", 1).result(60) == 1


def test_effects_forbid_a_second_run(master: Master) -> None:
    job = master.submit("pay", None)
    with pytest.raises(InterruptedJobError, match="exit code 3"):
        job.result(60)
    assert job.record.attempts == 1


@pytest.mark.parametrize("name", ["sleep", "stuck"])
def test_a_job_that_never_returns_gives_its_place_back(master: Master, name: str) -> None:
    jobs = [master.submit(name, i, timeout_seconds=0.3) for i in range(4)]
    for job in jobs:
        with pytest.raises(JobTimeoutError):
            job.result(60)
    assert master.submit("echo", 1).result(60) == 1
    until(lambda: master.statistics().running == 0)


@pytest.mark.parametrize("name", ["sleep", "stuck"])
def test_a_cancelled_job_stops(master: Master, name: str) -> None:
    job = master.submit(name, None)
    until(lambda: job.status() == JobState.RUNNING)
    assert job.cancel()
    with pytest.raises(JobCancelledError):
        job.result(60)
    until(lambda: master.statistics().running == 0)


def test_a_job_that_grows_past_its_limit_is_ended(master: Master) -> None:
    job = master.submit("leak", None)
    with pytest.raises(JobMemoryError, match="memory_bytes"):
        job.result(60)
    assert job.record.attempts == 1


def test_exceptions_that_cannot_be_told_end_their_job(master: Master) -> None:
    job = master.submit("bad", None)
    with pytest.raises(Bad):
        job.result(60)
    assert job.record.error is not None
    assert job.record.error.type == "Bad"


def test_texts_of_errors_are_cut(master: Master) -> None:
    job = master.submit("long_message", 20_000_000)
    with pytest.raises(TaskError, match="characters left out"):
        job.result(60)
    error = job.record.error
    assert error is not None
    assert max(len(error.message), len(error.traceback)) <= 64 << 10


def test_what_a_job_prints_is_kept_with_it(master: Master) -> None:
    job = master.submit("talk", "x")
    other = master.submit("talk", "y")
    job.result(60)
    other.result(60)
    by_stream: dict[str, list[str]] = {"stdout": [], "stderr": []}
    for line in job.logs():
        assert line.job == job.id
        assert line.node
        assert abs(line.time - time.time()) < 600
        by_stream[line.stream].append(line.text)
    assert by_stream["stdout"] == ["out x", "from a child", "no end"]
    assert by_stream["stderr"] == ["err", "INFO mine: logged"]
    assert len(job.logs(first=3)) == 2
    assert "out y" in [line.text for line in other.logs()]


def test_the_services_secrets_are_not_there(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTIC_RAY_TOKEN", "secret")
    monkeypatch.setenv("OTHER", "plain")
    with Master(workloads=registry, runners=1) as master:
        assert master.submit("environment", "AGENTIC_RAY_TOKEN").result(60) is None
        assert master.submit("environment", "OTHER").result(60) == "plain"


def test_what_a_job_leaves_behind_does_not_reach_the_next(master: Master) -> None:
    first = master.submit("litter", None).result(60)
    assert master.submit("environment", "LITTER").result(60) is None
    assert master.submit("pid", None).result(60) == first
    littered = master.submit("litter", "thread").result(60)
    assert littered not in {master.submit("pid", None).result(60) for _ in range(3)}


def test_what_cannot_be_sent_is_refused_at_once(registry: Registry) -> None:
    gate = threading.Event()
    mine = Registry()
    mine.register("gate", lambda params: gate.wait(1))
    with Master(workloads=mine, runners=1) as master:
        with pytest.raises(SerializationError, match="runners=0"):
            master.submit("gate", None)
        assert master.jobs() == []


def test_a_files_workloads_are_loaded_in_the_runner(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    text = (
        "import os\nimport agentic_ray as ar\nPID = os.getpid()\n"
        "@ar.workload('where', cache=False)\n"
        "def where(params: int) -> list[int]:\n    return [PID, os.getpid(), params]\n"
    )
    file.write_text(text)
    mine = Registry()
    from agentic_ray.master import registry as of_process

    load_workloads(file)
    mine.restore(of_process.snapshot())
    with Master(workloads=mine, runners=1) as master:
        loaded, runs, params = master.submit("where", 5).result(60)
        assert (loaded, params) == (runs, 5)
        assert loaded != os.getpid()
    file.write_text(text + "# changed\n")
    with (
        Master(workloads=mine, runners=1) as master,
        pytest.raises(UnknownWorkloadError, match="has changed"),
    ):
        master.submit("where", 5).result(60)


def test_forty_jobs_of_which_half_are_bad(master: Master) -> None:
    plan = ["leave", "sleep", "leak", "bad", *["echo"] * 4] * 5
    jobs = [
        master.submit(name, i, timeout_seconds=0.4 if name == "sleep" else None)
        for i, name in enumerate(plan)
    ]
    expected = {
        "leave": PoisonJobError,
        "sleep": JobTimeoutError,
        "leak": JobMemoryError,
        "bad": Bad,
    }
    for i, (name, job) in enumerate(zip(plan, jobs, strict=True)):
        if name == "echo":
            assert job.result(120) == i
        else:
            with pytest.raises(expected[name]):
                job.result(120)
    until(lambda: master.statistics().running == 0)
    assert master.submit("echo", "after").result(60) == "after"


def test_the_nursery_is_started_anew(registry: Registry) -> None:
    with Master(workloads=registry, runners=1) as master:
        assert master.submit("echo", 1).result(60) == 1
        nursery = master._operations.workplace._pool._nursery.pid  # type: ignore[attr-defined]
        os.kill(nursery, 9)
        until(lambda: not Path(f"/proc/{nursery}/cmdline").read_text())
        assert master.submit("echo", 2).result(60) == 2


def test_logs_and_deaths_outlive_the_master(registry: Registry, tmp_path: Path) -> None:
    with Master(workloads=registry, runners=1, journal=tmp_path / "j") as master:
        job = master.submit("talk", "x")
        job.result(60)
        poison = master.submit("leave", None)
        with pytest.raises(PoisonJobError):
            poison.result(60)
        lines = job.logs()
    with Master(workloads=registry, journal=tmp_path / "j") as master:
        assert master.job(job.id).logs() == lines
        assert master.record(poison.id).deaths == 3
        with pytest.raises(TaskError, match=r"PoisonJobError: .*exit code 3"):
            master.job(poison.id).result(0)


def test_small_values_wait_as_their_text(registry: Registry) -> None:
    body = [[] for _ in range(1_000_000)]
    with Master(workloads=registry, runners=1, held=True) as master:
        job = master.submit("echo", {"empty": body})
        del body
        kept = job.record.params
        assert sys.getsizeof(kept) < 1000
        assert len(kept.text) == len('{"empty":[]}') + 3 * 1_000_000 - 1
        master.begin()
        assert len(job.result(60)["empty"]) == 1_000_000
