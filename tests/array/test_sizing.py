"""How large "auto" chunks are."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array.core import sizing
from agentic_ray.array.core.chunks import auto
from agentic_ray.array.core.sizing import Surroundings, auto_bytes
from agentic_ray.telemetry.state import ClusterState, NodeState

MIB, GIB = 1 << 20, 1 << 30


def test_more_slots_get_more_chunks_until_tasks_would_be_too_small() -> None:
    sizes = [auto_bytes(GIB, Surroundings(slots, 8 * GIB)) for slots in (2, 32, 1024)]
    assert sizes == [32 * MIB, 16 * MIB, 8 * MIB]


def test_what_is_computed_in_the_callers_process_is_not_cut() -> None:
    assert auto_bytes(sizing.USUAL_BYTES, Surroundings(1024, 8 * GIB)) == sizing.USUAL_BYTES


def test_little_memory_makes_small_chunks() -> None:
    assert auto_bytes(100 * GIB, Surroundings(64, 256 * MIB)) == 8 * MIB
    assert auto_bytes(100 * GIB, Surroundings(64, GIB)) == 32 * MIB


def test_huge_arrays_have_no_more_chunks_than_can_be_planned() -> None:
    size = auto_bytes(16 << 40, Surroundings(64, 64 * GIB))
    assert (16 << 40) // size <= sizing.MOST_CHUNKS


@given(
    st.integers(0, 1 << 50), st.integers(1, 1 << 14), st.integers(1 << 16, 1 << 40)
)  # fmt: skip
def test_sizes_are_powers_of_two_that_fit(total: int, slots: int, memory: int) -> None:
    size = auto_bytes(total, Surroundings(slots, memory))
    assert size & (size - 1) == 0
    assert size == sizing.LEAST_BYTES or size <= max(memory * sizing.SLOT_SHARE, 1)


def test_clusters_that_differ_little_cut_alike() -> None:
    sizes = {auto_bytes(10 * GIB, Surroundings(slots, 7 * GIB)) for slots in range(170, 300, 10)}
    assert len(sizes) <= 2


def test_the_node_with_the_least_memory_a_cpu_decides() -> None:
    nodes = (
        NodeState("a", "a", 4.0, 4.0, 64 * GIB, GIB),
        NodeState("b", "b", 16.0, 0.0, 32 * GIB, GIB),
        NodeState("head", "head", 0.0, 0.0, GIB, GIB),  # no work is done there
        NodeState("gone", "gone", 8.0, 8.0, GIB, GIB, alive=False),
    )
    assert sizing.of_cluster(ClusterState(nodes, 0.0)) == Surroundings(20, 2 * GIB)
    assert sizing.of_cluster(ClusterState(nodes[2:], 0.0)) is None


def test_chunks_follow_the_session(
    ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    around = sizing.surroundings()
    assert around.slots == sum(int(node.cpus_total) for node in ar.cluster().alive_nodes)
    shape = (1 << 26,)  # 512 MiB
    found = auto(shape, np.dtype(np.float64))
    assert max(found[0]) * 8 == auto_bytes(512 * MIB, around)
    monkeypatch.setitem(sizing._of_session, ray_session, Surroundings(512, 2 * GIB))
    assert len(xp.zeros(shape).chunks[0]) == 64


def test_a_fixed_size_goes_before_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "surroundings", lambda: Surroundings(1 << 14, 1 << 24))
    with xp.config(chunk_bytes=64 * MIB):
        assert xp.zeros((1 << 26,)).chunks == ((1 << 23,) * 8,)
    x = xp.zeros((1 << 13, 1 << 13), chunks=(-1, "auto"))
    assert x.chunks[0] == (1 << 13,)
    assert max(x.chunks[1]) * (1 << 13) * 8 <= auto_bytes(512 * MIB, sizing.surroundings())


def test_making_an_array_starts_nothing() -> None:
    program = (
        "import sys, agentic_ray.array as xp; x = xp.zeros((10**9,)) + 1; "
        "assert x.chunks[0][0] < 10**9; assert 'ray' not in sys.modules, 'Ray was imported'"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
