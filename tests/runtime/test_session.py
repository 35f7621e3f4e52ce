"""Sessions: started once, joined, shared, refused, ended; each program in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentic_ray as ar
from agentic_ray.errors import InvalidArgumentError

Make = Callable[[str], Any]
pytestmark = pytest.mark.timeout(600)


def test_init_is_idempotent(ray_session: ar.Session) -> None:
    assert ar.init(num_cpus=2) is ray_session
    assert ar.init() is ray_session
    assert ar.get_session() is ray_session
    assert len(ar.cluster().nodes) == 1


def test_unknown_settings_and_policies_are_refused_even_then(ray_session: ar.Session) -> None:
    with pytest.raises(InvalidArgumentError, match="unknown setting"):
        ar.init(colour="red")


@pytest.mark.slow
def test_shutdown_and_again_and_nothing_left(program: Make) -> None:
    one = program(
        """
        import operator, psutil, threading, ray
        from ray._private import worker
        import agentic_ray as ar
        from agentic_ray.errors import SessionError
        ar.shutdown()  # without a session: nothing
        first = ar.init(num_cpus=1)
        assert ar.map_reduce(abs, [-1, 2], operator.add) == 3
        parts = worker._global_node.all_processes
        assert {"gcs_server", "raylet"} <= parts.keys()
        assert not {"monitor", "dashboard"} & parts.keys()  # nobody would ask them anything
        raylet = psutil.Process(parts["raylet"][0].process.pid)
        agents = [child for child in raylet.children() if "Agent" in " ".join(child.cmdline())]
        assert len(agents) == 2, agents
        errors = []
        def long():
            try:
                ar.map_reduce(lambda x: __import__("time").sleep(60), [1, 2])
            except Exception as error:
                errors.append(error)
        thread = threading.Thread(target=long)
        thread.start()
        __import__("time").sleep(1.0)
        ar.shutdown()
        ar.shutdown()
        thread.join(20)
        assert not thread.is_alive() and isinstance(errors[0], SessionError), errors
        assert first.closed and not ray.is_initialized()
        # the agents do not look for their Ray any longer
        assert psutil.wait_procs(agents, timeout=20)[1] == []
        graph = ar.TaskGraph([], [])
        try:
            first.submit(graph)
        except SessionError as error:
            assert "init" in str(error)
        else:
            raise AssertionError("a closed session took a graph")
        assert ar.map_reduce(abs, [-1, 2], operator.add) == 3  # starts again by itself
        assert ar.get_session() is not first
        # Ray replaced behind our back: a new session on the new Ray
        ar.shutdown()
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
        joined = ar.init()
        assert ar.map_reduce(abs, [-3], operator.add) == 3
        ray.shutdown()
        assert joined.closed
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
        assert joined.closed
        assert ar.map_reduce(abs, [-4], operator.add) == 4
        ar.shutdown()
        assert ray.is_initialized()  # the user's own Ray stays
        print("fine")
        """
    )
    assert "fine" in one.run()
    assert one.leftovers() == []


@pytest.mark.slow
def test_bad_addresses_are_session_errors_and_quick(program: Make) -> None:
    one = program(
        """
        import os, time
        import agentic_ray as ar
        from agentic_ray.errors import InvalidArgumentError, SessionError
        def refused(error_type, environment=None, **options):
            started = time.monotonic()
            try:
                ar.init(**options)
            except error_type as error:
                assert time.monotonic() - started < 40
                return str(error)
            raise AssertionError(options)
        assert "ray start" in refused(SessionError, address="127.0.0.1:1")
        assert "garbage" in refused(SessionError, address="garbage")
        refused(SessionError, address="no-such-host.invalid:6379")
        assert "job submit" in refused(InvalidArgumentError, address="ray://127.0.0.1:10001")
        os.environ["RAY_ADDRESS"] = "127.0.0.1:1"
        assert "127.0.0.1:1" in refused(SessionError)
        os.environ["RAY_ADDRESS"] = "ray://127.0.0.1:1"
        refused(InvalidArgumentError)
        del os.environ["RAY_ADDRESS"]
        os.environ["AGENTIC_RAY_ADDRESS"] = "127.0.0.1:2"
        assert "127.0.0.1:2" in refused(SessionError)
        print("fine")
        """
    )
    assert "fine" in one.run()


@pytest.mark.slow
def test_idle_cpus_go_back_and_a_users_ray_task_runs(program: Make) -> None:
    one = program(
        """
        import operator, time, ray
        import agentic_ray as ar
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        session = ar.init(share=0.5, idle_release_seconds=0.3, poll_seconds=0.2)
        assert session.slots == 1, session.slots
        assert ar.map_reduce(abs, [-1, 2], operator.add) == 3
        @ray.remote(num_cpus=2)
        def whole():
            return 7
        started = time.monotonic()
        assert ray.get(whole.remote(), timeout=20) == 7  # needs every CPU
        assert ar.map_reduce(abs, [-1, 2], operator.add) == 3  # and holds them again
        ar.shutdown()
        session = ar.init(idle_release_seconds=0.3, poll_seconds=0.2)
        assert ar.map_reduce(abs, [-1, 2], operator.add) == 3
        assert ray.get(whole.remote(), timeout=20) == 7
        # A task of the user's inside a map function: with a CPU to spare it runs.
        ar.shutdown()
        ar.init(share=0.5)
        @ray.remote(num_cpus=1)
        def inner(x):
            return x + 1
        job = ar.map_reduce_job(lambda x: ray.get(inner.remote(x)), [1, 2, 3], operator.add)
        assert job.result(timeout=60) == 9
        # With none it waits for ever, as nested tasks do in Ray; a timeout ends the job.
        ar.shutdown()
        ar.init(share=1.0)
        job = ar.map_reduce_job(lambda x: ray.get(inner.remote(x)), [1, 2, 3], operator.add)
        try:
            print("nested", job.result(timeout=3))
        except TimeoutError:
            print("nested timed out")
        assert ar.map_reduce(abs, [-1, 2], operator.add) == 3
        print("fine")
        """
    )
    assert "fine" in one.run()
    assert one.leftovers() == []


@pytest.mark.slow
def test_two_sessions_on_one_cluster_both_make_progress(program: Make, tmp_path: Path) -> None:
    head = program(
        """
        import sys, time
        import ray
        from tests.support.clusters import start_head
        cluster = start_head(2)
        print(cluster.address, flush=True)
        sys.stdin.read()
        cluster.shutdown()
        """
    )
    user = """
        import operator, time
        import agentic_ray as ar
        job = ar.map_reduce_job(lambda x: (time.sleep(0.05), x)[1], range(60), operator.add)
        assert job.result(timeout=240) == sum(range(60))
        session = ar.get_session()
        ar.shutdown()
        print("fine")
        """
    serving = subprocess.Popen(
        [sys.executable, str(head.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=head.environment,
    )
    assert serving.stdout is not None
    address = serving.stdout.readline().strip()
    users = [program(user), program(user)]
    started = [
        subprocess.Popen(
            [sys.executable, str(one.path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**one.environment, "RAY_ADDRESS": address},
        )
        for one in users
    ]
    for process in started:
        output, _ = process.communicate(timeout=280)
        assert process.returncode == 0, output
        assert "fine" in output
    serving.communicate("", timeout=30)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and head.processes():
        time.sleep(0.1)
    assert head.leftovers() == []


@pytest.mark.slow
def test_costs_are_kept_for_the_next_session_and_demand_ends_with_its_session(
    program: Make, tmp_path: Path
) -> None:
    one = program(
        """
        import time
        import ray
        from ray.autoscaler import sdk
        import agentic_ray as ar
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
        asked = []
        sdk.request_resources = lambda num_cpus, bundles: asked.append((num_cpus, bundles))
        nap = ar.Codelet("kept.nap", lambda i: time.sleep(0.3))
        tasks = [ar.Task.of(nap, i, key=str(i)) for i in range(40)]
        graph = ar.TaskGraph(tasks, [task.key for task in tasks])
        session = ar.init()
        assert session.model.predict(tasks[0], "cpu") is None
        run = session.submit(graph, target_seconds=0.0)
        deadline = time.monotonic() + 60
        while not (asked and len(run.placements()) > 2):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert asked[-1][0] > 1, asked  # CPUs beyond the one there is
        for _ in range(8):
            session.model.observe_call(0.004)
        ar.shutdown()
        assert asked[-1] == (None, None), asked
        predicted = ar.init().model.predict(tasks[0], "cpu")
        assert 0.29 < predicted.seconds < 3.0, predicted
        assert ar.init().model.call_overhead_seconds == 0.004
        ar.shutdown()
        ray.shutdown()
        print("fine")
        """
    )
    output = one.run(XDG_CACHE_HOME=str(tmp_path), AGENTIC_RAY_KEEP_COSTS="1")
    assert "fine" in output
    assert (tmp_path / "agentic_ray" / "costs.sqlite").exists()


def test_bundles_are_neither_short_nor_longer_than_pays(ray_session: ar.Session) -> None:
    overhead = ray_session.model.call_overhead_seconds
    slots = ray_session.slots
    for work in (0.0, 1e-3, 0.1, 10.0, 1e3, 1e6):
        found = ray_session.bundle_seconds(work)
        assert overhead <= found <= 200 * overhead
        # every slot gets some of it, where it is worth a call
        assert found <= max(overhead, 1.1 * work / slots)
    assert ray_session.bundle_seconds(1e6) == 200 * overhead
    assert ray_session.bundle_seconds(0.0) == overhead
