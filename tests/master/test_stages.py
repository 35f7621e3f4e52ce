"""Stages of a job that had finished when the master died are not run again."""

from __future__ import annotations

import json
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray import Client, Master
from agentic_ray.errors import InvalidArgumentError, JournalError, SerializationError
from agentic_ray.master.results import DirectoryResults, MemoryResults
from agentic_ray.master.stages import StageShelf
from agentic_ray.master.workloads import Registry
from agentic_ray.runtime import Stages, job_scope, recorded, stages


@pytest.fixture
def shelf() -> StageShelf:
    return StageShelf(MemoryResults(), set(), set)


def again(shelf: StageShelf, work: Callable[[], Any], job_id: str = "job") -> Any:
    """Run ``work`` as a run of the job."""
    with job_scope(job_id) as scope:
        kept = shelf.of(job_id)
        assert kept is not None
        scope.stages = Stages(kept, scope.log)
        return work()


def test_outside_a_job_a_stage_is_a_call() -> None:
    assert ar.stage("one", operator.add, 1, 2) == 3
    assert ar.stage("one", lambda name: name, name="x") == "x"
    with pytest.raises(InvalidArgumentError, match="needs a name"):
        ar.stage("", print)
    assert recorded("graph", lambda: 1, lambda: 2) == 2


def test_a_finished_stage_is_not_run_again(shelf: StageShelf) -> None:
    calls: list[str] = []

    def part(name: str, fail: bool = False) -> Any:
        calls.append(name)
        if fail:
            raise OSError("as if the master had died")
        return np.arange(5) / 3

    def work(fail: bool) -> Any:
        first = ar.stage("first", part, "a")
        for i in range(2):
            ar.stage(f"pass {i}", part, f"b{i}")
        return first, ar.stage("last", part, "c", fail)

    with pytest.raises(OSError, match="died"):
        again(shelf, lambda: work(True))
    assert calls == ["a", "b0", "b1", "c"]
    calls.clear()
    first, last = again(shelf, lambda: work(False))
    assert calls == ["c"]
    assert first.tobytes() == last.tobytes() == (np.arange(5) / 3).tobytes()
    # another job has its own
    again(shelf, lambda: work(False), "other")
    assert calls == ["c", "a", "b0", "b1", "c"]
    shelf.drop("job")
    calls.clear()
    again(shelf, lambda: work(False))
    assert calls == ["a", "b0", "b1", "c"]


def test_stages_within_stages(shelf: StageShelf) -> None:
    calls: list[str] = []

    def leaf(name: str) -> str:
        calls.append(name)
        if len(calls) == 2:
            raise OSError("died")
        return name

    def outer(name: str) -> list[str]:
        return [ar.stage("x", leaf, name + "x"), ar.stage("y", leaf, name + "y")]

    def work() -> list[list[str]]:
        return [ar.stage("one", outer, "1"), ar.stage("two", outer, "2")]

    with pytest.raises(OSError, match="died"):
        again(shelf, work)
    assert again(shelf, work) == [["1x", "1y"], ["2x", "2y"]]
    assert calls == ["1x", "1y", "1y", "2x", "2y"]


def test_names_are_given_once_and_values_must_be_picklable(shelf: StageShelf) -> None:
    with pytest.raises(InvalidArgumentError, match="was there already"):
        again(shelf, lambda: (ar.stage("a", int), ar.stage("a", int)))
    with pytest.raises(SerializationError, match="stage 'lock' cannot be kept"):
        again(shelf, lambda: ar.stage("lock", lambda: (i for i in ())))


def test_graphs_are_told_apart_by_order_and_checked_by_content(
    shelf: StageShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "WORTH_SECONDS", 0.0)
    made: list[int] = []

    def compute(value: int) -> int:
        made.append(value)
        return value

    def unknown() -> Any:
        raise SerializationError("an iterator")

    def work(contents: list[Any]) -> list[int]:
        found = []
        for i, content in enumerate(contents):
            told = content if callable(content) else partial(str, content)
            found.append(recorded("g", told, partial(compute, i)))
        return found

    assert again(shelf, lambda: work(["a", "a", unknown, "b"])) == [0, 1, 2, 3]
    assert again(shelf, lambda: work(["a", "a", unknown, "c"])) == [0, 1, 2, 3]
    assert made == [0, 1, 2, 3, 2, 3]  # what cannot be told, and what is another, is made again
    monkeypatch.setattr(stages, "WORTH_SECONDS", 60.0)
    again(shelf, lambda: work(["x"]), "quick")
    again(shelf, lambda: work(["x"]), "quick")
    assert made[6:] == [0, 0]


def test_a_damaged_record_is_made_again(tmp_path: Path) -> None:
    shelf = StageShelf(DirectoryResults(tmp_path), set(), set)
    assert again(shelf, lambda: ar.stage("a", lambda: [1.5])) == [1.5]
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"something else")
    later = StageShelf(DirectoryResults(tmp_path), {"job"}, set)
    assert again(later, lambda: ar.stage("a", lambda: [2.5])) == [2.5]
    # and those of jobs that are over go away
    StageShelf(DirectoryResults(tmp_path), {"another"}, set).close(30)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_cannot_be_kept_is_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    class Full(MemoryResults):
        def put(self, name: str, content: bytes) -> str:
            raise JournalError("no space left on device")

    shelf = StageShelf(Full(), set(), set)
    for value in (1, 2):
        assert again(shelf, lambda value=value: ar.stage("a", lambda: value)) == value
    assert "a finished stage is not kept: no space left" in caplog.text


def test_the_records_of_a_job_go_when_it_ends(tmp_path: Path) -> None:
    registry = Registry()
    seen: list[list[str]] = []
    folder = tmp_path / "journal.stages"

    def staged(params: int) -> int:
        ar.stage("a", lambda: params)
        seen.append([path.name for path in folder.iterdir()])
        return params

    registry.register("staged", staged)
    registry.register("paid", staged, effects=True)
    with Master(journal=tmp_path / "journal", workloads=registry) as master:
        job = master.submit("staged", 1)
        assert job.result() == 1
        assert len(seen[0]) == 1
        assert seen[0][0].startswith(job.id)
        deadline = time.monotonic() + 30
        while list(folder.iterdir()):  # they are deleted in a thread of its own
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert master.submit("paid", 2).result() == 2  # never run twice: nothing to keep
        assert seen[1] == []


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("kind", ["map_reduce", "array"])
def test_graphs_of_a_job_are_kept_by_content(
    kind: str, shelf: StageShelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stages, "WORTH_SECONDS", 0.0)

    def noted(block: Any) -> Any:
        (tmp_path / f"{time.time_ns()}").touch()
        return block * 0.1

    def work(factor: float) -> Any:
        if kind == "map_reduce":
            data = [factor * i for i in range(100)]
            return ar.map_reduce(noted, data, operator.add, initial=0.5)
        # larger than what is computed in the caller's process
        x = xp.random.default_rng(3).random((6_000_000,), chunks=1_000_000) * factor
        return float(xp.sum(xp.map_blocks(noted, x, dtype="float64")))

    first = again(shelf, lambda: work(1.0))
    calls = len(list(tmp_path.iterdir()))
    assert calls > 0
    second = again(shelf, lambda: work(1.0))
    assert len(list(tmp_path.iterdir())) == calls
    assert second.hex() == first.hex()
    assert again(shelf, lambda: work(2.0)) != first
    assert len(list(tmp_path.iterdir())) > calls


WORKLOADS = """
import os, time
import numpy as np
import agentic_ray as ar

def note(name):
    with open(os.environ["NOTES"], "a") as file:
        print(name, file=file)

def load(n):
    note("load")
    return np.random.default_rng(n).random(1000)

def fit(rows):
    note("fit")
    if not os.path.exists(os.environ["NOTES"] + ".go"):
        time.sleep(60)
    return float((rows * 0.1).sum())

@ar.workload("train")
def train(params: int) -> float:
    rows = ar.stage("load", load, params)
    return ar.stage("fit", fit, rows)
"""

SERVER = """
import sys
from agentic_ray.cli import main
from agentic_ray.service import hosting

hosting.SessionHost.start = lambda self: self._become("ok")
main(sys.argv[1:])
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_ended_goes_on_after_the_last_finished_stage(
    tmp_path: Path, end: signal.Signals
) -> None:
    """Without Ray in the server: it has no part in this, and takes seconds to start."""
    (tmp_path / "workloads.py").write_text(WORKLOADS)
    (tmp_path / "server.py").write_text(SERVER)
    notes = tmp_path / "notes"

    def serve() -> tuple[subprocess.Popen[str], Client]:
        process = subprocess.Popen(
            [
                *(sys.executable, str(tmp_path / "server.py"), "serve", "--port", "0"),
                *("--workloads", str(tmp_path / "workloads.py")),
                *("--journal", str(tmp_path / "journal"), "--drain-seconds", "0.2"),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NOTES": str(notes)},
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        return process, Client(line.removeprefix("serving on ").strip(), timeout=10)

    first, client = serve()
    task_id = client.submit(7, workload="train")
    deadline = time.monotonic() + 30
    while not (notes.exists() and notes.read_text().split() == ["load", "fit"]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(end)
    assert first.wait(10) == (0 if end == signal.SIGTERM else -end)
    client.close()
    Path(f"{notes}.go").touch()
    second, client = serve()
    try:
        found = client.result(task_id, 30)
        assert client.status(task_id)["attempts"] == 2
    finally:
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0
        client.close()
        for process in (first, second):
            assert process.stdout is not None
            process.stdout.close()
    assert notes.read_text().split() == ["load", "fit", "fit"]
    rows = np.random.default_rng(7).random(1000)
    assert json.dumps(found) == json.dumps(float((rows * 0.1).sum()))
    assert list((tmp_path / "journal.stages").iterdir()) == []
