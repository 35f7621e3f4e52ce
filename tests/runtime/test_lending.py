"""A session that is lent to another process: the same results, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest

import agentic_ray as ar
from agentic_ray.runtime import get_session
from agentic_ray.runtime.lending import Lender

HEAD = """
import operator, sys
import numpy as np
import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.runtime.lent import borrow

path = sys.argv[1]
borrow(lambda: path)
"""


@pytest.fixture
def lender(ray_session: ar.Session) -> Iterator[Lender]:
    made = Lender(get_session)
    yield made
    made.close()


def borrower(lender: Lender, code: str) -> str:
    script = textwrap.dedent(HEAD) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", script, lender.path], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_front_ends_give_the_same_there(lender: Lender) -> None:
    printed = borrower(
        lender,
        """
        import ray
        print(ar.map_reduce(lambda x: x * x, [1, 2, 3, 4, 5], operator.add))
        print(ar.map_reduce(lambda x: 0.1 * x, range(1000), operator.add).hex())
        print([len(t) for t in ar.map_reduce(str, [10 ** 70_000, 7])] if False else "")
        print(sum(map(len, ar.map_reduce(lambda n: "x" * n, [100_000, 3, 200_000]))))
        x = xp.asarray(np.arange(12_000_000, dtype=np.float64))
        kept = (x * 0.1).persist()
        print(float(xp.sum(kept)).hex(), float(xp.max(kept)))
        table = [{"name": "n" * 90_000, "at": i} for i in range(4)]
        print(ar.map_reduce(lambda row: row["at"], table, operator.add))
        print(len(ar.cluster().alive_nodes) > 0, ray.is_initialized())
        """,
    ).split("\n")
    assert printed[0] == "55"
    assert printed[1] == ar.map_reduce(lambda x: 0.1 * x, range(1000), lambda a, b: a + b).hex()
    assert printed[3] == "300003"
    import numpy as np

    import agentic_ray.array as xp

    here = xp.asarray(np.arange(12_000_000, dtype=np.float64)) * 0.1
    assert printed[4] == f"{float(xp.sum(here)).hex()} {float(xp.max(here))}"
    assert printed[5] == "6"
    assert printed[6] == "True False"


def test_a_users_own_exception_and_what_tasks_print_arrive(lender: Lender) -> None:
    printed = borrower(
        lender,
        """
        class Own(Exception):
            def __init__(self, a, b):
                self.a = a
                super().__init__(b)

        def work(x):
            print("at", x)
            if x == 3:
                raise Own(x, "on purpose")
            return x

        try:
            ar.map_reduce(work, [1, 2, 3], operator.add, chunk_size=3)
        except Own as error:
            print(error.a, error, error.element_index)
        """,
    )
    assert printed.split("\n")[:4] == ["at 1", "at 2", "at 3", "3 on purpose 2"]


def test_what_a_borrower_had_under_way_is_cancelled_when_it_dies(lender: Lender) -> None:
    borrower(
        lender,
        """
        import os, time
        job = ar.map_reduce_job(lambda x: time.sleep(0.2), range(100_000), None)
        import threading
        threading.Thread(target=job.result, daemon=True).start()
        time.sleep(2)
        sys.stdout.flush()
        os._exit(0)
        """,
    )
    session = get_session()
    deadline = time.monotonic() + 60
    while session._runs:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert ar.map_reduce(abs, [-1, 2], max) == 2


def test_a_borrower_outlives_its_lender(ray_session: ar.Session) -> None:
    lender = Lender(get_session)
    script = textwrap.dedent(HEAD) + textwrap.dedent(
        """
        import time
        def slow(x):
            time.sleep(0.1)
            return x
        print("begun", flush=True)
        print(ar.map_reduce(slow, range(60), operator.add), flush=True)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, lender.path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(2.5)
    lender.close()
    again = Lender(get_session, lender.path) if False else None
    assert again is None
    import os

    os.makedirs(os.path.dirname(lender.path), exist_ok=True)
    again = Lender(get_session, lender.path)
    assert process.stdout.readline() == f"{sum(range(60))}\n"
    assert process.wait(60) == 0
    again.close()
