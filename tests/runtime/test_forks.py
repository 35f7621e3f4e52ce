"""Processes forked off one that has a session: small work is done, all else is an error at once."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
Make = Callable[[str], Any]

START = """
    import concurrent.futures, multiprocessing, operator, os, sys, threading, time
    import numpy as np, ray
    import agentic_ray as ar
    import agentic_ray.array as xp
    from agentic_ray.errors import SessionError
    ar.init(num_cpus=2)
    x = xp.arange(10)
    data = np.arange(3_000_000.0)
    local = xp.asarray(data)  # 24 MB
    large = xp.asarray(np.arange(5_000_000.0)) * 2
    kept = (large + 1).persist()
    def works():
        assert ar.map_reduce(abs, [-1, 2], operator.add) == 3
        assert float(kept.sum()) == float((np.arange(5_000_000.0) * 2 + 1).sum())
    works()
    def child(*_):
        "What a fork can and what it cannot do; gives how each ended."
        assert int(xp.arange(10).sum()) == 45
        assert float(local.sum()) == float(data.sum())
        assert float((x * 2 + 1).mean()) == 10.0
        assert np.asarray(local[5:8]).tolist() == [5.0, 6.0, 7.0]
        ends = []
        for use in (
            lambda: float(large.sum()),
            lambda: float(kept.sum()),
            lambda: np.asarray(kept[:3]),
            lambda: (x + 1).persist(),
            lambda: ar.map_reduce(abs, [-1, 2], operator.add),
            lambda: ar.init(),
            lambda: ar.init(address="auto"),
            lambda: ar.cluster(),
            lambda: ar.get_session(),
        ):
            try:
                ends.append(repr(use()))
            except SessionError as error:
                assert "spawn" in str(error) and "forked" in str(error), error
                ends.append("refused")
        ar.shutdown()  # nothing: the session is the parent's
        return ends
    def check(ends):
        assert ends[:3] == ["refused"] * 3 and ends[4:] == ["refused"] * 5, ends
        works()
"""
END = """
    ar.shutdown()
    print("fine")
"""


def test_multiprocessing_and_executors(program: Make) -> None:
    one = program(
        START
        + """
    fork = multiprocessing.get_context("fork")
    with fork.Pool(2) as pool:
        for ends in pool.map(child, range(4)):
            check(ends)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=fork) as executor:
        for ends in executor.map(child, range(4)):
            check(ends)
    process = fork.Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0, process.exitcode
    works()
    # as a data loader does: workers that index arrays, as long as the parent asks
    def loader(tasks, answers):
        for i in iter(tasks.get, None):
            answers.put(float(np.asarray(local[i * 10 : i * 10 + 10]).sum()))
    tasks, answers = fork.Queue(), fork.Queue()
    workers = [fork.Process(target=loader, args=(tasks, answers), daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    for i in range(20):
        tasks.put(i)
    assert sum(answers.get(timeout=60) for _ in range(20)) == data[:200].sum()
    for worker in workers:
        tasks.put(None)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    works()
    # by spawn all is possible, as a process of its own
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(1) as pool:
        assert pool.apply(abs, (-3,)) == 3
"""
        + END
    )
    source = one.path.read_text()
    one.path.write_text(f"if __name__ == '__main__':\n{_indented(source)}")
    assert "fine" in one.run(timeout=400)
    assert one.leftovers() == []


def test_plain_forks_that_end_in_every_way(program: Make) -> None:
    one = program(
        START
        + """
    def forked(body, seconds=60):
        "The exit status of a fork that does ``body`` and then ends as a program does."
        pid = os.fork()
        if not pid:
            code = 1
            try:
                body()
                code = 0
            finally:
                if code:
                    import traceback
                    traceback.print_exc()
                    sys.stderr.flush()
            sys.exit(code)
        deadline = time.monotonic() + seconds
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, "the child hangs"
            time.sleep(0.02)
    def checked():
        ends = child()
        assert ends[:3] == ["refused"] * 3, ends
    main = os.getpid()
    code = forked(checked)
    assert os.getpid() == main
    assert code == 0, code
    works()
    # while other threads compute, submit and wait
    stop = threading.Event()
    def busy():
        while not stop.is_set():
            float((local * 2).sum())
    def calling():
        while not stop.is_set():
            ar.map_reduce(abs, [-1, 2], operator.add)
    threads = [threading.Thread(target=busy), threading.Thread(target=calling)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        assert forked(checked, 90) == 0
    stop.set()
    for thread in threads:
        thread.join(60)
    works()
    # a fork of a fork, and one that only ends
    def again():
        assert forked(checked) == 0
    assert forked(again) == 0
    assert forked(lambda: None) == 0
    works()
    # with its own exit code, what it wrote, and what it registered to be called at its end
    for code in range(8):
        ready, told = os.pipe()
        pid = os.fork()
        if not pid:
            import atexit, ctypes
            atexit.register(os.write, told, b"python ")
            ctypes.CDLL(None).printf(b"from C\\n")
            sys.stdout.write("from Python\\n")
            sys.exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
        os.close(told)
        assert os.read(ready, 100) == b"python "
"""
        + END
    )
    said = one.run(timeout=400)
    assert "fine" in said
    assert said.count("from C") == said.count("from Python") == 8
    assert one.leftovers() == []


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "on_exit"), reason="the C library has no on_exit"
)
def test_destructors_from_before_a_fork_are_left_out_at_its_end(program: Make) -> None:
    one = program(
        """
        import ctypes, os, sys
        from agentic_ray.runtime import connection
        library = ctypes.CDLL(None)
        pid = os.fork()
        if not pid:
            library.on_exit(ctypes.cast(library.abort, ctypes.c_void_p), None)
            if not os.fork():
                connection._end_without_destructors()
                library.printf(b"from C\\n")
                sys.stdout.write("from Python\\n")
                sys.exit(7)
            os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
        print("ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )
    said = one.run()
    assert "ended with 7" in said
    assert said.count("from C") == said.count("from Python") == 1


def test_a_fork_before_the_session_may_have_its_own(program: Make) -> None:
    one = program(
        """
        import operator, os, sys
        import agentic_ray as ar
        import agentic_ray.array as xp
        import agentic_ray.runtime
        pid = os.fork()
        if not pid:
            ar.init(num_cpus=1)
            assert ar.map_reduce(abs, [-1, 2], operator.add) == 3
            ar.shutdown()
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        ar.init(num_cpus=1)
        assert ar.map_reduce(abs, [-1, 2], operator.add) == 3
        ar.shutdown()
        print("fine")
        """
    )
    assert "fine" in one.run(timeout=400)
    assert one.leftovers() == []


def _indented(source: str) -> str:
    return "".join(f"    {line}\n" for line in source.splitlines())
