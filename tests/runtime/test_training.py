"""Placing of a training's workers, without Ray Train: what the processes of a lease are given."""

from __future__ import annotations

from agentic_ray.runtime.leases import LEASE_VARIABLE, Lease
from agentic_ray.runtime.training import Group
from agentic_ray.runtime.training.run import _process_environment

A, B = "a" * 56, "b" * 56
"""Ids of nodes."""


def lease(*places: tuple[str, str]) -> Lease:
    return Lease("lease-1", places, tuple([10] * len(places)), lambda lease_id: None)


def test_workers_see_the_cards_of_their_nodes_lease_and_no_others() -> None:
    cards = lease((A, "GPU-1"), (A, "GPU-2"), (B, "GPU-3"), (B, "GPU-4"))
    group = Group(cards, each=2, cpus=3, on_gpu=True)
    found = {
        node: variables["CUDA_VISIBLE_DEVICES"] for node, variables in group.environments.items()
    }
    assert found == {A: "GPU-1,GPU-2", B: "GPU-3,GPU-4"}
    shared = _process_environment(group)
    assert "CUDA_VISIBLE_DEVICES" not in shared, "it differs by node"
    assert shared[LEASE_VARIABLE] == "lease-1:10"
    assert shared["OMP_NUM_THREADS"] == "3"


def test_workers_on_cpus_see_no_card() -> None:
    group = Group(lease((A, "cpu")), each=2, cpus=1, on_gpu=False)
    assert group.environments[A]["CUDA_VISIBLE_DEVICES"] == ""
