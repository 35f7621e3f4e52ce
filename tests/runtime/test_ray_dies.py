"""The only node of an embedded Ray dies by SIGKILL: Ray is started anew, the bits are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
Make = Callable[[str], Any]

START = """
    import operator, os, signal, threading, time
    import numpy as np, psutil, ray
    import agentic_ray as ar
    import agentic_ray.array as xp
    from agentic_ray.errors import LostDataError, SessionError
    from ray._private import worker
    def part(name):
        parts = worker._global_node.all_processes
        raylet = parts["raylet"][0].process.pid
        if name == "raylet":
            return raylet
        if name == "gcs_server":
            return parts["gcs_server"][0].process.pid
        for child in psutil.Process(raylet).children():
            if name in " ".join(child.cmdline()):
                return child.pid
        raise AssertionError(f"no {name}")
    def kill(name):
        before = worker._global_node
        os.kill(part(name), signal.SIGKILL)
        return before
    def until(condition, seconds=300):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.05)
    def start(function):
        found = []
        def call():
            try:
                found.append(function())
            except BaseException as error:
                found.append(error)
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        return thread, found
    def finished(thread, found):
        thread.join(400)
        assert found, "it hangs"
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]
    def nap(x):
        time.sleep(0.05)
        return x * 0.1
    floats = [float(i) for i in range(60)]
    session = ar.init(num_cpus=2, no_node_seconds=600)
    expected = ar.map_reduce(lambda x: x * 0.1, floats, operator.add)
"""
END = """
    ar.shutdown()
    assert not ray.is_initialized()
    print("fine")
"""


WHILE_JOBS_RUN = (
    START
    + """
    names = os.environ["PARTS"].split(",")
    data = np.random.default_rng(0).random((2000, 2000))  # 32 MB, in chunks of the store
    x = xp.asarray(data)
    kept = (x * 2 + 1).persist()
    reference = float(((kept - kept.mean(axis=0)) ** 2).sum())
    rows = np.arange(4_000_000.0)
    square = ar.codelet(lambda block, *, xp: float(xp.sum(block * block)))
    by_blocks = ar.map_reduce(square, rows, operator.add, chunk_size=1 << 19)

    for name in names:
        jobs = [
            start(lambda: ar.map_reduce(nap, floats, operator.add)),
            start(lambda: float(((kept - kept.mean(axis=0)) ** 2).sum())),
            start(lambda: [ar.map_reduce(square, rows, operator.add, chunk_size=1 << 19)
                           for _ in range(5)][-1]),
        ]
        time.sleep(1.0)
        kill(name)
        print("killed", name, flush=True)
        assert finished(*jobs[0]).hex() == expected.hex()
        assert finished(*jobs[1]).hex() == reference.hex()
        assert finished(*jobs[2]).hex() == by_blocks.hex()
        # the session is the same, and goes on
        assert ar.get_session() is session and not session.closed
        assert float(((kept - kept.mean(axis=0)) ** 2).sum()).hex() == reference.hex()
        assert ar.map_reduce(nap, floats, operator.add).hex() == expected.hex()
"""
    + END
)


def test_a_part_of_ray_dies_while_jobs_run_and_then_another(program: Make) -> None:
    one = program(WHILE_JOBS_RUN)
    output = one.run(timeout=800, PARTS="raylet,gcs_server")
    assert "fine" in output
    assert output.count("started anew") >= 2
    assert one.leftovers() == []


def test_an_agent_of_the_raylet_dies_while_jobs_run(program: Make) -> None:
    """Nothing hangs. The raylet takes leave when its agent is dead; if the news of that reaches
    Ray's core in this process before the keeper has ended the rest of Ray, the core ends the
    process, with a message of its own or without any, which no code of ours can prevent. Usually it
    does not."""
    for name in ["DashboardAgent", "RuntimeEnvAgent", "DashboardAgent", "RuntimeEnvAgent"]:
        one = program(WHILE_JOBS_RUN)
        try:
            output = one.run(timeout=800, PARTS=name)
        except AssertionError as error:
            silent = "returncode=1" in str(error) and "Traceback" not in str(error)
            if not (silent or "core_worker" in str(error)):
                raise
            continue
        assert "started anew" in output
        assert one.leftovers() == []
        return
    raise AssertionError("Ray's core was quicker each time")


def test_it_dies_while_idle_and_again_and_what_is_kept_is_made_again(program: Make) -> None:
    one = program(
        START
        + """
    def make():
        data = np.random.default_rng(1).random(5_000_000)
        x = xp.asarray(data)
        return x, (x + 1).persist()
    x, kept = make()
    again = (kept * 3).persist()  # of what was persisted itself
    wild = xp.random.default_rng(5).random((6_000_000,)).persist()
    sums = [float(a.sum()) for a in (kept, again, wild)]
    orphan = make()[1]  # its data is nowhere else
    finished_run = session.submit(ar.TaskGraph(
        [ar.Task.of(ar.Codelet("ones", lambda: np.ones(300_000)), key="a")], ["a"]))
    finished_run.wait(60)
    for _ in range(2):
        old = kill("raylet")
        until(lambda: worker._global_node not in (None, old))
        assert ar.map_reduce(nap, floats, operator.add).hex() == expected.hex()
        assert [float(a.sum()).hex() for a in (kept, again, wild)] == [s.hex() for s in sums]
    # nobody has asked for the result of this one before
    assert finished_run.result(timeout=300)[0].sum() == 300_000
    try:
        print("no error", float(orphan.sum()))
    except LostDataError as error:
        assert "lost with its only node" in str(error) and "Make" in str(error), error
    else:
        raise AssertionError("it was computed from data that is gone")
    # at once after a kill, without a pause
    kill("raylet")
    assert float(kept.sum()).hex() == sums[0].hex()
    # an iterator cannot be read again: a small one travels in the calls, and is done
    slow = (nap(float(i)) for i in range(40))
    job = start(lambda: ar.map_reduce(abs, slow, operator.add))
    time.sleep(0.3)
    kill("raylet")
    assert abs(finished(*job) - sum(i * 0.1 for i in range(40))) < 1e-9
"""
        + END
    )
    output = one.run(timeout=850)
    assert "fine" in output
    assert one.leftovers() == []


def test_shutdown_beside_a_dead_ray_ends(program: Make) -> None:
    one = program(
        START
        + """
    kill("raylet")
    ar.shutdown()
    assert session.closed
    ar.init(num_cpus=2)
    assert ar.map_reduce(nap, floats, operator.add).hex() == expected.hex()
    kill("gcs_server")
    ar.shutdown()
    print("fine")
"""
    )
    assert "fine" in one.run(timeout=800)
    assert one.leftovers() == []
