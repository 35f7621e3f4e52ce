"""What is left of a session that has ended is refused by name; nobody waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
Make = Callable[[str], Any]

START = """
    import operator, threading, time
    import numpy as np, ray
    import agentic_ray as ar
    import agentic_ray.array as xp
    from agentic_ray.errors import JobCancelledError, SessionError
    def refused(function, *words):
        try:
            found = function()
        except SessionError as error:
            assert all(word in str(error) for word in words), error
            return error
        raise AssertionError(f"it was taken: {found!r}")
    def works():
        assert ar.map_reduce(abs, [-1, 2], operator.add) == 3
        assert ar.map_reduce(abs, range(-9, 0), operator.add) == 45
    def in_threads(*functions):
        "What each raises or gives, in order; none may hang."
        found = [None] * len(functions)
        def call(i):
            try:
                found[i] = functions[i]()
            except BaseException as error:
                found[i] = error
        threads = [threading.Thread(target=call, args=(i,)) for i in range(len(functions))]
        for thread in threads:
            thread.start()
        return threads, found
    def join(threads):
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "it hangs"
    def nap(seconds):
        time.sleep(seconds)
        return seconds
"""


def test_arrays_jobs_and_references_of_an_ended_session(program: Make) -> None:
    one = program(
        START
        + """
    from agentic_ray.runtime import Stored
    first = ar.init(num_cpus=2)
    name = first.name
    data = np.random.default_rng(0).random(8_000_000)
    source = xp.asarray(data)
    kept = (source * 2 + 1).persist()
    known = float(kept.sum())
    mask = kept > 2.5
    done = ar.map_reduce_job(abs, [-1, 2], operator.add)
    assert done.result() == 3
    fresh = ar.map_reduce_job(abs, [-1, 2], operator.add)
    run = first.submit(ar.TaskGraph([ar.Task.of(ar.Codelet("n", lambda: 5), key="a")], ["a"]))
    assert run.wait(60)
    large = first.submit(ar.TaskGraph([ar.Task.of(ar.Codelet(
        "z", lambda: np.zeros(1_000_000)), key="a")], ["a"]))
    assert large.wait(60)
    theirs = ray.put(np.arange(10.0))
    reference = Stored(ray.put(np.arange(1_000_000.0)), 8_000_000)

    # all that wait when the session ends are woken
    threads, found = in_threads(
        lambda: ar.map_reduce(nap, [60.0] * 4, operator.add),
        lambda: ar.map_reduce_job(nap, [60.0] * 4).result(),
        lambda: first.submit(ar.TaskGraph([ar.Task.of(ar.Codelet("nap", nap), 60.0, key="a")],
                                          ["a"])).result(),
        lambda: float(xp.map_blocks(lambda b: nap(60) + b, source, dtype=float).sum()),
    )
    iterator = (nap(0.01) for _ in range(10**9))
    more, half_way = in_threads(lambda: ar.map_reduce(abs, iterator, operator.add))
    time.sleep(2.0)
    began = time.monotonic()
    ar.shutdown()
    join(threads + more)
    for error in found + half_way:
        assert isinstance(error, SessionError), error

    # what is left of it is refused, before there is another session and with one
    for _ in range(2):
        for use in (
            lambda: float(kept.sum()),
            lambda: np.asarray(kept[:5]),
            lambda: float((kept + 1).mean()),
            lambda: (kept * 3).persist(),
            lambda: int(mask.sum()),
            lambda: float((source + kept).sum()),
        ):
            refused(use, name, "ended", "again")
        for use in (run.result, large.result, fresh.result):
            refused(use)
        assert done.result is not None
        works()
    second = ar.get_session()
    assert second is not first
    refused(lambda: first.submit(ar.TaskGraph([], [])), "init")
    refused(lambda: ar.map_reduce(abs, [theirs], operator.add), "put it again")
    take = ar.TaskGraph([ar.Task.of(ar.Codelet("t", lambda x: x), reference, key="a")], ["a"])
    refused(lambda: second.submit(take).result(timeout=60), name, "ended")
    works()
    # and the same lines again work
    kept = (source * 2 + 1).persist()
    assert float(kept.sum()) == known
    works()
    ar.shutdown()
    print("fine")
    """
    )
    assert "fine" in one.run(timeout=500)
    assert one.leftovers() == []


def test_shutdown_at_odd_moments(program: Make) -> None:
    one = program(
        START
        + """
    # in a callback of a run, which the loop's own thread calls
    session = ar.init(num_cpus=2)
    run = session.submit(ar.TaskGraph([ar.Task.of(ar.Codelet("n", lambda: 5), key="a")], ["a"]))
    run.on_done(ar.shutdown)
    try:
        assert run.result(timeout=60) == [5]
    except SessionError:
        pass
    deadline = time.monotonic() + 60
    while ray.is_initialized():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # ray.shutdown() behind our back, with work under way and waiters
    session = ar.init(num_cpus=2)
    works()
    kept = xp.random.default_rng(0).random((8_000_000,)).persist()
    threads, found = in_threads(
        lambda: ar.map_reduce(nap, [60.0] * 4, operator.add),
        lambda: session.submit(ar.TaskGraph(
            [ar.Task.of(ar.Codelet("nap", nap), 60.0, key="a")], ["a"])).result(),
    )
    time.sleep(1.5)
    ray.shutdown()
    join(threads)
    assert all(isinstance(error, SessionError) for error in found), found
    assert session.closed
    refused(lambda: session.submit(ar.TaskGraph([], [])))
    # a session in a thread that ends, twice the same, with a double init
    threads, found = in_threads(lambda: ar.init(num_cpus=2))
    join(threads)
    assert found[0] is ar.init(num_cpus=2) is ar.init()
    refused(lambda: float(kept.sum()), "ended")
    works()
    # several threads shut down at once, and shut down again
    threads, found = in_threads(ar.shutdown, ar.shutdown, ar.shutdown)
    join(threads)
    assert found == [None] * 3
    ar.shutdown()
    print("fine")
    """
    )
    assert "fine" in one.run(timeout=500)
    assert one.leftovers() == []


def test_references_dropped_and_work_done_while_ray_is_shut_down(program: Make) -> None:
    """Ray's core ends the process if a thread uses it then; our threads and ObjectRefs do not."""
    one = program(
        START
        + """
    for leave in (ar.shutdown, ray.shutdown):
        session = ar.init(num_cpus=2)
        kept = xp.random.default_rng(0).random((8_000_000,)).persist()
        refs = [ray.put(i) for i in range(4_000)]
        def drop():
            while refs:
                refs.pop()
                time.sleep(0.0005)
        def compute():
            while True:
                float((kept + 1).sum())
        threads, found = in_threads(
            drop, compute, lambda: ar.map_reduce(nap, [0.003] * 20_000, operator.add)
        )
        time.sleep(1.0)
        leave()
        join(threads)
        assert all(isinstance(error, SessionError) for error in found[1:]), found
        assert found[0] is None and session.closed
    works()
    print("fine")
    """
    )
    assert "fine" in one.run(timeout=500)
    assert one.leftovers() == []
