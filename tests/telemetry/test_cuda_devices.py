"""CUDA ordinals from CUDA_VISIBLE_DEVICES in all its forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.telemetry.devices import VisibleDevices, environment_for, visible_devices
from agentic_ray.telemetry.state import GpuState

A = GpuState("GPU-aa11-1", 0, "X")
B = GpuState("GPU-aa22-2", 1, "X")
C = GpuState("GPU-bb33-3", 2, "X")
WHOLE = (A, B, C)
M1 = GpuState(
    "MIG-c1d", 1, "M", mig_parent=B.uuid, mig_index=0, gpu_instance_id=1, compute_instance_id=0
)
M2 = GpuState(
    "MIG-c2d", 1, "M", mig_parent=B.uuid, mig_index=1, gpu_instance_id=2, compute_instance_id=0
)
MIXED = (A, M1, M2, C)


def seen(gpus: tuple[GpuState, ...], value: str | None) -> tuple[GpuState, ...]:
    environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    return visible_devices(gpus, environ).devices


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, WHOLE),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("0", (A,)),
        ("2,0", (C, A)),
        (" 1 , 2 ", (B, C)),
        ("+1", (B,)),
        ("1gpu,2nd", (B, C)),
        ("0,-1,1", (A,)),
        ("0,7,1", (A,)),
        ("7", ()),
        ("0,x,1", (A,)),
        ("0,,1", (A,)),
        ("0,1,0", ()),
        ("GPU-aa11-1", (A,)),
        ("GPU-bb33-3,GPU-aa11-1", (C, A)),
        ("GPU-b", (C,)),
        ("GPU-aa", ()),  # two devices begin so
        ("GPU-aa1,GPU-aa2", (A, B)),
        ("GPU-aa1,GPU-zz,GPU-bb", (A,)),
        ("GPU-aa1,2", (A,)),
        ("0,GPU-aa2", (A,)),
        ("GPU-aa1,GPU-aa11-1", ()),
        ("garbage", ()),
    ],
)
def test_whole_gpus(value: str | None, expected: tuple[GpuState, ...]) -> None:
    assert seen(WHOLE, value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, (M1,)),  # with an instance enumerated no other device is
        ("MIG-c2d", (M2,)),
        ("MIG-c2", (M2,)),
        ("MIG-c", ()),
        ("MIG-c1d,MIG-c2d", (M1,)),
        (f"MIG-{B.uuid}/2/0", (M2,)),
        (f"MIG-{B.uuid}/2/1", ()),
        ("MIG-GPU-aa2/1/0", (M1,)),
        ("1", (M1,)),
        ("0", (A,)),
        ("0,2", (A, C)),
        ("0,1,2", (M1,)),
        (B.uuid, (M1,)),
        ("GPU-bb", (C,)),
    ],
)
def test_mig(value: str | None, expected: tuple[GpuState, ...]) -> None:
    assert seen(MIXED, value) == expected


def test_ordinals_and_reasons() -> None:
    visible = visible_devices(WHOLE, {"CUDA_VISIBLE_DEVICES": "2,0,9"})
    assert visible.ordinal(C.uuid) == 0
    assert visible.ordinal(A.uuid) == 1
    assert visible.ordinal(B.uuid) is None
    assert visible.device(1) is A
    assert visible.device(2) is None
    assert visible.device(-1) is None
    assert visible.reason is not None
    assert "'9' names no device" in visible.reason
    twice = visible_devices(WHOLE, {"CUDA_VISIBLE_DEVICES": "0,0"})
    assert twice.reason is not None
    assert "twice" in twice.reason


def test_indices_are_certain_only_in_bus_order_or_among_equals() -> None:
    unequal = (A, GpuState("GPU-z", 1, "Y"))
    assert visible_devices(WHOLE, {"CUDA_VISIBLE_DEVICES": "1"}).certain
    assert not visible_devices(unequal, {"CUDA_VISIBLE_DEVICES": "1"}).certain
    assert not visible_devices(unequal, {}).certain
    by_bus = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert visible_devices(unequal, by_bus).certain
    assert visible_devices(unequal, {"CUDA_VISIBLE_DEVICES": "GPU-z"}).certain


def test_no_gpus_at_all() -> None:
    assert visible_devices((), {}) == VisibleDevices(())
    assert visible_devices((), {"CUDA_VISIBLE_DEVICES": "0"}).devices == ()


@pytest.mark.parametrize("gpu", [A, B, M1, M2])
def test_an_environment_for_one_device(gpu: GpuState) -> None:
    gpus = MIXED if gpu.mig_parent else WHOLE
    visible = visible_devices(gpus, environment_for(gpu))
    assert visible.devices == (gpu,)
    assert visible.certain


@given(st.text(alphabet="0123GPUMIG-abc/, +x", max_size=20) | st.text(max_size=10))
def test_any_text_gives_distinct_devices_of_this_node(value: str) -> None:
    for gpus in (WHOLE, MIXED):
        devices = seen(gpus, value)
        assert len(set(devices)) == len(devices)
        assert set(devices) <= set(gpus)


@given(st.lists(st.sampled_from(WHOLE), unique=True, min_size=1))
def test_uuids_keep_their_order(chosen: list[GpuState]) -> None:
    assert seen(WHOLE, ",".join(gpu.uuid for gpu in chosen)) == tuple(chosen)
