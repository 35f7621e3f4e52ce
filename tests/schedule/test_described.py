"""Clusters described in a line: what is understood, and what is refused with a reason."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.schedule.described import Machine, describe_cluster

HERE = Machine(3, 6, 1, 10**9, 10**8)


def test_every_name_is_understood() -> None:
    found = describe_cluster(
        " nodes=64, cpus=16,gpus=8,memory=256GB,gpu_memory=80GiB,link=25Gbit,speed=1.5 "
    )
    assert found.machines == (Machine(64, 16, 8, 256 * 10**9, 80 * 2**30, 25e9 / 8, 1.5),)
    assert found.slots == 64 * 24
    assert found.gpus == 512
    assert str(found) == (
        "64 nodes of 16 CPUs, 8 GPUs of 80 GiB, 238.4 GiB of memory, 2.91 GiB/s, speed 1.5"
    )


def test_what_is_not_said_is_as_here() -> None:
    assert describe_cluster("nodes=5", HERE).machines == (Machine(5, 6, 1, 10**9, 10**8),)
    assert describe_cluster("gpus=0", HERE).machines == (Machine(1, 6, 0, 10**9, None),)


def test_kinds_of_nodes_are_joined() -> None:
    cluster = describe_cluster("nodes=2,cpus=4+gpus=2,link=1MB/s").cluster(5e8, 0.25)
    assert [(n.node_id, n.slots, n.gpus, n.bytes_per_second) for n in cluster.nodes] == [
        ("n0", 4, 0, 5e8),
        ("n1", 4, 0, 5e8),
        ("n2", 1, 2, 1e6),
    ]
    # The slower of the two ends counts.
    assert cluster.move_seconds(10**6, cluster.nodes[0], cluster.nodes[2]) == 1.25
    assert cluster.move_seconds(10**6, *cluster.nodes[:2]) == pytest.approx(0.252)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not by nothing"),
        (" , ", "not by nothing"),
        ("64", "is described as nodes=64,gpus=8"),
        ("node=3", "not by 'node=3'"),
        ("nodes", "nodes needs a value, as in nodes=64"),
        ("nodes=", "nodes needs a value"),
        ("nodes=0", "whole number from 1"),
        ("nodes=-2", "whole number from 1"),
        ("nodes=1.5", "whole number from 1"),
        ("nodes=1000001", "to 100,000"),
        ("cpus=0", "whole number from 1"),
        ("cpus=many", "whole number from 1"),
        ("gpus=-1", "whole number from 0"),
        ("memory=lots", "a size such as 64GB"),
        ("memory=0", "a size such as 64GB"),
        ("gpu_memory=80GB", "no gpus"),
        ("link=fast", "a rate such as 10Gbit"),
        ("link=0Gbit", "a rate such as 10Gbit"),
        ("speed=0", "a number above 0"),
        ("speed=nan", "a number above 0"),
        ("speed=inf", "a number above 0"),
        ("nodes=2,nodes=3", "given twice"),
        ("nodes=2+", "not by nothing"),
    ],
)
def test_nonsense_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        describe_cluster(text)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(alphabet="nodescpugmlik=,+.0123456789GBbit -", max_size=40))
def test_any_text_is_a_cluster_or_a_typed_error(text: str) -> None:
    try:
        found = describe_cluster(text)
    except InvalidArgumentError:
        return
    assert found.slots >= 1
    assert all(0 < one.link_bytes_per_second <= math.inf for one in found.machines)
