"""How many threads BLAS of this process has, and what it is kept from: forks while it computes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from agentic_ray.blas import Gate, OneThread, loaded

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

# Without the gate this hangs in OpenBLAS, or prints other bits, within some tens of forks.
PROGRAM = """
import hashlib, subprocess, threading
import numpy as np
import agentic_ray as ar
import agentic_ray.array as xp

def factors(seed):
    x = xp.random.default_rng(seed).standard_normal((24_000, 12), chunks=(4_000, 12))
    q, r = xp.linalg.qr(x)
    values = ar.compute(xp.sum(q, axis=0), r)
    return hashlib.sha256(b"".join(np.asarray(v).tobytes() for v in values)).hexdigest()

def again():
    for seed in range(3):
        found.append(factors(seed) == expected[seed])

expected = [factors(seed) for seed in range(3)]
found = []
threads = [threading.Thread(target=again) for _ in range(2)]
for thread in threads:
    thread.start()
forks = 0
while any(thread.is_alive() for thread in threads):
    subprocess.run(["true"], preexec_fn=int, check=True)
    forks += 1
assert forks > 3, forks
print(found.count(True), "the same,", found.count(False), "others")
"""


def test_arrays_are_computed_right_while_other_threads_fork() -> None:
    # Two threads of BLAS: with one it has nothing to end.
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "6 the same, 0 others\n"


def forked(gate: Gate) -> None:
    """What happens in the parent around a fork."""
    gate.before_fork()
    gate.after_fork()


def test_a_fork_waits_for_others_and_others_for_the_fork() -> None:
    gate = Gate()
    order: list[str] = []
    began = threading.Event()

    def fork() -> None:
        began.set()
        gate.before_fork()
        order.append("forked")
        gate.after_fork()

    with gate:
        thread = threading.Thread(target=fork)
        thread.start()
        began.wait()
        while not gate._forks:
            time.sleep(0.001)
        order.append("computed")
    with gate:  # only when the fork is over
        order.append("computed again")
    thread.join()
    assert order == ["computed", "forked", "computed again"]


def test_a_thread_that_computes_can_fork_and_enter_again() -> None:
    gate = Gate()
    with gate, gate:
        forked(gate)
    with gate:
        pass
    forked(gate)


def test_a_child_can_compute_and_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentic_ray.blas.LONGEST_WAIT_SECONDS", 0.05)
    gate = Gate()
    inside, leave = threading.Event(), threading.Event()

    def compute() -> None:
        with gate:
            inside.set()
            leave.wait()

    thread = threading.Thread(target=compute)
    thread.start()
    inside.wait()
    gate.before_fork()
    gate.in_child()  # where that thread is not
    with gate:
        pass
    forked(gate)
    leave.set()
    thread.join()


def test_a_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentic_ray.blas.LONGEST_WAIT_SECONDS", 0.05)
    gate = Gate()
    with gate:
        thread = threading.Thread(target=forked, args=(gate,))
        thread.start()
        thread.join(timeout=60)
        assert not thread.is_alive()
    with gate:
        pass


def _threads() -> list[int]:
    return [library.get_threads() for library in loaded()]


@pytest.fixture
def two_threads() -> Iterator[list[int]]:
    """BLAS with two threads, as a user may have it."""
    before = _threads()
    for library in loaded():
        library.set_threads(2)
    yield [2] * len(before)
    for library, threads in zip(loaded(), before, strict=True):
        library.set_threads(threads)


def test_blas_has_one_thread_until_the_last_one_leaves(two_threads: list[int]) -> None:
    one_thread = OneThread()
    inside, leave = threading.Event(), threading.Event()

    def compute() -> None:
        with one_thread:
            inside.set()
            leave.wait()

    thread = threading.Thread(target=compute)
    with one_thread, one_thread:
        thread.start()
        inside.wait()
        assert set(_threads()) == {1}
    assert set(_threads()) == {1}  # the other one is still at it
    leave.set()
    thread.join()
    assert _threads() == two_threads
    with pytest.raises(ZeroDivisionError), one_thread:
        1 / 0
    assert _threads() == two_threads


def test_a_child_has_the_threads_that_its_parent_had(two_threads: list[int]) -> None:
    one_thread = OneThread()
    inside, leave = threading.Event(), threading.Event()

    def compute() -> None:
        with one_thread:
            inside.set()
            leave.wait()

    thread = threading.Thread(target=compute)
    thread.start()
    inside.wait()
    one_thread.in_child()  # where that thread is not
    assert _threads() == two_threads
    with one_thread:
        assert set(_threads()) == {1}
        one_thread.in_child()  # forked by the one that is inside
        assert set(_threads()) == {1}
    assert _threads() == two_threads
    leave.set()
    thread.join()
