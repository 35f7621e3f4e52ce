"""A session records itself; its recording is replayed, event by event, also after faults."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.cli.app import cli
from agentic_ray.errors import InvalidArgumentError, SessionError
from agentic_ray.runtime.recordings import Recording
from agentic_ray.schedule.replaying import Replay


def _steps(path: Path) -> int:
    with path.open(encoding="utf-8") as lines:
        count = 0
        for step in Replay(lines):
            assert step.same, step
            count += 1
    return count


def test_a_session_with_faults_is_replayed(ray_session: ar.Session, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"

    def fragile(x: int) -> int:
        mark = tmp_path / f"died-{x}"
        if x % 10 == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    with ray_session.record(path) as recording:
        assert ar.map_reduce(fragile, range(40), lambda a, b: a + b) == sum(range(40))
        x = xp.random.default_rng(0).random((400_000,), chunks=50_000)
        assert 0 < float(xp.sort(x)[200_000]) < 1
        xp.random.default_rng(0).random((6_000_000,), chunks=1_500_000).persist()
        with pytest.raises(ZeroDivisionError):
            ar.map_reduce(lambda x: 1 // x, range(3))
        with pytest.raises(SessionError, match="records already"):
            ray_session.record(tmp_path / "other.jsonl")
    assert repr(recording) == f"<recording {path}, closed>"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    size = path.stat().st_size
    ar.map_reduce(abs, range(10))
    assert path.stat().st_size == size
    assert _steps(path) > 20
    done = CliRunner().invoke(cli, ["replay", str(path), "--policy", "load_balance", "--json"])
    told = json.loads(done.output)
    assert done.exit_code == 0, done.output
    assert told["differing_events"] == 0
    assert told["compared"]
    assert all(
        seconds > 0 for row in told["compared"] for seconds in row["simulated_seconds"].values()
    )
    drawing = tmp_path / "run.svg"
    forms = ["--gantt", str(drawing), "--timeline", str(tmp_path / "run.html")]
    forms += ["--trace", str(tmp_path / "run.json")]
    done = CliRunner().invoke(cli, ["replay", str(path), "--decisions", *forms])
    assert "decides the same" in done.output
    assert "start bundle" in done.output
    assert "<svg" in drawing.read_text()
    assert "predicted" in (tmp_path / "run.html").read_text()
    events = json.loads((tmp_path / "run.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) > 8
    held = [event["args"]["bytes"] for event in events if event["ph"] == "C"]
    assert max(held) >= 24_000_000, "the chunks that were persisted"
    assert held[-1] == 0, "their graph has been released"


def test_the_last_events_are_written_when_asked_also_while_work_is_under_way(
    ray_session: ar.Session, tmp_path: Path
) -> None:
    path, mark = tmp_path / "last.jsonl", tmp_path / "begun"

    def slow() -> int:
        mark.touch()
        while not (tmp_path / "go").exists():
            time.sleep(0.01)
        return 1

    graph = ar.TaskGraph([ar.Task.of(ar.Codelet("slow_one", cpu=slow), key="t")], ["t"])
    run = ray_session.submit(graph)
    while not mark.exists():
        time.sleep(0.01)
    count = ray_session.write_last_events(path)
    (tmp_path / "go").touch()
    assert run.result() == [1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open(encoding="utf-8") as lines:
        steps = list(Replay(lines))
    assert 0 < len(steps) <= count
    begun = [command for step in steps for command in step.recorded if command[0] == "Start"]
    assert begun[-1][4] == "t"
    # (Tests before may have broken a Dispatcher of this session: the next test compares decisions.)
    done = CliRunner().invoke(cli, ["replay", str(path), "--json"])
    assert json.loads(done.output)["events"] == len(steps)
    with pytest.raises(InvalidArgumentError, match="cannot be recorded in"):
        ray_session.write_last_events(tmp_path / "nowhere" / "last.jsonl")


def test_a_session_of_its_own_begins_with_its_first_event(tmp_path: Path) -> None:
    """Nothing is missing, so the decisions are compared; with the setting 0 none are kept."""
    code = (
        "import agentic_ray as ar\n"
        "ar.map_reduce(abs, range(100))\n"
        f"print(ar.get_session().write_last_events({str(tmp_path / 'last.jsonl')!r}))\n"
    )
    environ = {**os.environ, "AGENTIC_RAY_ADDRESS": "local", "AGENTIC_RAY_NUM_CPUS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert int(done.stdout.split()[-1]) > 3
    shown = CliRunner().invoke(cli, ["replay", str(tmp_path / "last.jsonl")])
    assert "decides the same, event by event" in shown.output
    none = subprocess.run(
        [sys.executable, "-c", code],
        env={**environ, "AGENTIC_RAY_KEPT_EVENTS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "SessionError" in none.stderr
    assert "kept_events" in none.stderr


def test_nothing_is_recorded_while_results_are_held(
    ray_session: ar.Session, tmp_path: Path
) -> None:
    graph = ar.TaskGraph([ar.Task.of(ar.Codelet("one", cpu=lambda: 1), key="t")], ["t"])
    run = ray_session.submit(graph)
    assert run.wait(60)
    path = tmp_path / "run.jsonl"
    with pytest.raises(SessionError, match="still held"):
        ray_session.record(path)
    assert run.result() == [1]
    with ray_session.record(path):
        assert ray_session.submit(graph).result() == [1]
    assert _steps(path) > 1


def test_a_recording_ends_where_it_may_not_grow_and_work_goes_on(
    ray_session: ar.Session, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    recording = Recording(path)
    ray_session._recordings.begin(recording, wait=True)
    # (Its first line holds what other tests have taught the cost model.)
    recording._most_bytes = most_bytes = path.stat().st_size + 10_000
    for _ in range(20):
        assert ar.map_reduce(abs, range(8)) == list(range(8))
    assert f"{most_bytes} bytes" in recording.why_ended
    assert path.stat().st_size <= most_bytes + 100
    assert _steps(path) > 1


def test_a_file_that_cannot_be_written_is_refused(ray_session: ar.Session, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be recorded in"):
        ray_session.record(tmp_path / "nowhere" / "run.jsonl")
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(InvalidArgumentError, match="cannot be recorded in"):
        ray_session.record(tmp_path / "link")
    assert victim.read_text() == "mine"


def test_a_replay_of_something_else_says_so(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text("hello\n")
    from agentic_ray.cli.app import run_cli

    assert run_cli(["replay", str(path)]) != 0
