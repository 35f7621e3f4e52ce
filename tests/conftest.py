"""One embedded Ray for the whole run: starting it takes seconds, using it milliseconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentic_ray as ar
from agentic_ray.master.workloads import registry
from agentic_ray.runtime.current import current_session

# No test may depend on what the one before it cost; programs that tests start inherit it.
os.environ.setdefault("AGENTIC_RAY_KEEP_COSTS", "0")
# Nor may it join a cluster that somebody has started on this machine with `ray start`, or that
# another test has made: Ray's `cluster_utils.Cluster` leaves the same note.
os.environ.setdefault("RAY_ADDRESS", "local")
# Each Ray that a test starts has ten processes: without bytecode each of them would compile all of
# Ray anew, which takes three seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


LONGEST = (
    "docs/test_blocks.py",
    "test_ray_job.py",
    "array/test_bits.py",
    "runtime/test_ray_dies.py",
    "runtime/test_gpu_cluster.py",
    "runtime/test_ended_sessions.py",
    "service/test_serve.py",
    "chaos/test_chaos.py",
    "runtime/test_terminal.py",
    "runtime/test_session.py",
    "schedule/test_simulate.py",
    "test_examples.py",
    "test_cli.py",
    "notebook/test_examples.py",
)
"""Files that take minutes. They come first, so that at the end no process is left with one while
the other has nothing to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True)
def _own_workloads() -> Iterator[None]:
    """Workloads that a test registers are gone after it."""
    before = registry.snapshot()
    yield
    registry.restore(before)


@pytest.fixture(scope="session")
def _one_session() -> Iterator[None]:
    yield
    ar.shutdown()


@pytest.fixture
def ray_session(_one_session: None) -> ar.Session:
    """A session on an embedded Ray with two CPUs, shared by all tests that need one.

    A test that kills things restores what it killed, or uses a Ray of its own in a subprocess.
    """
    session = current_session()
    if session is not None and session.settings.num_cpus != 2:
        ar.shutdown()  # a test without this fixture started one by itself
    return ar.init(num_cpus=2)
