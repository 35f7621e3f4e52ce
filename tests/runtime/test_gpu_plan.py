"""Which GPU executors a node should have, from Ray's count and NVML's list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.runtime.gpu_nodes import plan_gpus
from agentic_ray.telemetry.state import GpuState


def gpu(number: int, *, healthy: bool = True, parent: str | None = None) -> GpuState:
    reason = None if healthy else "XID 79: GPU has fallen off the bus"
    return GpuState(f"G{number}", number, "Test", mig_parent=parent, healthy=healthy, reason=reason)


def test_one_executor_a_gpu() -> None:
    plan = plan_gpus(2.0, [gpu(0), gpu(1)], None, (), 0)
    assert (plan.start, plan.share, plan.retire, plan.reason) == (2, 1.0, (), "")
    assert plan_gpus(2.0, [gpu(0), gpu(1)], None, (), 1).start == 1
    assert plan_gpus(2.0, [gpu(0), gpu(1)], None, ("G0", "G1"), 0).start == 0


def test_an_unhealthy_gpu_is_retired_with_its_reason_and_comes_back() -> None:
    plan = plan_gpus(2.0, [gpu(0, healthy=False), gpu(1)], None, ("G0", "G1"), 0)
    assert plan.retire == (("G0", "XID 79: GPU has fallen off the bus"),)
    assert plan.start == 0
    assert plan_gpus(2.0, [gpu(0), gpu(1)], None, ("G1",), 0).start == 1


def test_a_gpu_that_nvml_lists_no_longer_is_retired() -> None:
    plan = plan_gpus(1.0, [], "the NVIDIA driver is not loaded", ("G0",), 0)
    assert plan.retire == (("G0", "NVML no longer lists it"),)
    assert "the NVIDIA driver is not loaded" in plan.reason


@pytest.mark.parametrize(
    ("ray", "listed", "start", "words"),
    [
        (3, 1, 1, "Ray counts 3 GPUs, NVML lists 1"),
        (1, 3, 1, "NVML lists 3 GPUs, Ray counts 1"),
        (2, 0, 0, "Ray counts 2 GPUs, NVML lists none"),
        (0, 0, 0, ""),
    ],
)
def test_counts_that_differ_are_told(ray: int, listed: int, start: int, words: str) -> None:
    plan = plan_gpus(float(ray), [gpu(i) for i in range(listed)], None, (), 0)
    assert plan.start == start
    assert plan.reason.startswith(words)


def test_mig_instances_share_the_gpu_that_ray_counts_once() -> None:
    instances = [gpu(i, parent="P") for i in range(3)]
    plan = plan_gpus(1.0, instances, None, (), 0)
    assert (plan.start, plan.share, plan.reason) == (3, 0.3333, "")
    plan = plan_gpus(3.0, instances, None, (), 0)  # Ray was told of each
    assert (plan.start, plan.share) == (3, 1.0)


@given(
    ray=st.integers(0, 8),
    health=st.lists(st.booleans(), max_size=8),
    mig=st.booleans(),
    running=st.sets(st.integers(0, 9)),
    starting=st.integers(0, 3),
)
def test_never_more_executors_than_devices_or_than_ray_grants(
    ray: int, health: list[bool], mig: bool, running: set[int], starting: int
) -> None:
    gpus = [gpu(i, healthy=ok, parent="P" if mig else None) for i, ok in enumerate(health)]
    names = sorted(f"G{number}" for number in running)
    plan = plan_gpus(float(ray), gpus, None, names, starting)
    retired = {uuid for uuid, _ in plan.retire}
    usable = {one.uuid for one in gpus if one.healthy}
    assert retired == set(names) - usable
    after = len(names) - len(retired) + starting + plan.start
    assert plan.start == 0 or after <= len(usable)
    assert plan.start == 0 or after * plan.share <= ray + 1e-9
    assert all(reason for _, reason in plan.retire)
