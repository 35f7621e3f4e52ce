"""What the arena is tested for, on a real card through CuPy."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array.core import device_kernels, evaluate
from agentic_ray.errors import OutOfDeviceMemoryError
from agentic_ray.graph import Codelet, Ref, Resources, Task, TaskGraph
from agentic_ray.runtime.device_run import Job, run_job
from agentic_ray.runtime.devices import CupyDevice
from agentic_ray.runtime.devices.cupy_device import STAGING_BYTES
from agentic_ray.runtime.execute import Step
from agentic_ray.runtime.oom import Note
from agentic_ray.runtime.resident import ValueTable


def _double(x: Any, *, xp: Any) -> Any:
    return x * 2


def _add(x: Any, y: Any, *, xp: Any) -> Any:
    return x + y


def _total(x: Any, *, xp: Any) -> float:
    return float(xp.sum(x))


DOUBLE = Codelet("double", _double, _double, chunk_axis=0)
SOLID = Codelet("solid", _double, _double)
ADD = Codelet("add", _add, _add)
TOTAL = Codelet("total", _total, _total)
CODELETS = {codelet.name: codelet for codelet in (DOUBLE, SOLID, ADD, TOTAL)}


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(12, dtype=np.int16).reshape(3, 4)),
        np.arange(40.0)[::3],
        np.array(3.5),
        np.zeros((0, 3)),
        np.array([True, False]),
        np.arange(6, dtype=np.complex64),
        np.random.default_rng(0).random(STAGING_BYTES // 8 * 2 + 17),  # several staging buffers
    ],
    ids=["C", "F", "strided", "0-d", "empty", "bool", "complex", "large"],
)
def test_arrays_survive_the_way_there_and_back(device: CupyDevice, array: Any) -> None:
    with device.computing():
        there = device.to_device({"a": [array, "text"]})
        back = device.to_host(there)
    assert isinstance(there["a"][0], device.xp.ndarray)
    assert back["a"][1] == "text"
    assert back["a"][0].dtype == array.dtype
    assert np.array_equal(back["a"][0], array)


def test_views_on_the_device_are_copied_right(device: CupyDevice) -> None:
    with device.computing():
        x = device.to_device(np.arange(24.0).reshape(4, 6))
        assert np.array_equal(device.to_host(x[1:, ::2]), np.arange(24.0).reshape(4, 6)[1:, ::2])
        assert np.array_equal(device.to_host(x.T), np.arange(24.0).reshape(4, 6).T)


def test_host_arrays_are_not_mixed_in(device: CupyDevice) -> None:
    with device.computing(), pytest.raises(TypeError):
        device.to_device(np.ones(3)) + np.ones(3)


def test_memory_and_its_limit(device: CupyDevice) -> None:
    device.set_memory_limit(64 * 2**20)
    with device.computing(), pytest.raises(MemoryError) as caught:
        device.to_device(np.ones(16 * 2**20))
    assert device.is_out_of_memory(caught.value)
    assert not device.is_lost(caught.value)
    memory = device.memory()
    assert 0 < memory.free_bytes <= memory.total_bytes


def test_fused_kernels_have_the_bits_of_their_steps(device: CupyDevice) -> None:
    table = np.random.default_rng(4).random((1024, 512))
    x = xp.asarray(table, chunks=-1)
    ((task,), _), ((summing,), _) = (
        evaluate.plan([y._node]) for y in (xp.exp(x) * 3 - 1, xp.sum(xp.exp(x) * 3 - 1))
    )
    with device.computing():
        there = device.to_device(table)
        plain = device.xp.exp(there) * 3 - 1
        assert np.array_equal(
            device.to_host(task.codelet.gpu(there, *task.args[1:], xp=device.xp)),
            device.to_host(plain),
        )
        total = device.to_host(summing.codelet.gpu(there, *summing.args[1:], xp=device.xp))
        assert np.isclose(float(total), float(plain.sum()), rtol=1e-13)
    assert device_kernels._kernel.cache_info().currsize >= 2


def _job(device: CupyDevice, codelet: str, x: Any) -> Job:
    steps = [Step("a", codelet, (Ref("x"),), {})]
    return Job(device, steps, CODELETS, {"x": x}, frozenset("a"))


def test_the_ladder_splits_and_gives_the_same_result(device: CupyDevice) -> None:
    x = np.random.default_rng(1).random(4 * 2**20)  # 32 MiB
    device.set_memory_limit(48 * 2**20)
    notes: list[Note] = []
    job = _job(device, "double", x)
    with device.computing():
        run_job(job, make_room=lambda: device.free_pool() or "freed", note=notes.append)
        assert np.array_equal(device.to_host(job.values["a"]), x * 2)
    assert [note.kind for note in notes][:2] == ["memory: freed", "memory: split"]


def test_the_ladder_gives_up_without_a_result(device: CupyDevice) -> None:
    device.set_memory_limit(48 * 2**20)
    job = _job(device, "solid", np.ones(4 * 2**20))
    with device.computing(), pytest.raises(OutOfDeviceMemoryError):
        run_job(job, make_room=lambda: device.free_pool() or "freed", note=lambda note: None)
    assert set(job.values) == {"x"}


def test_kept_values_are_spilled_and_come_back(device: CupyDevice) -> None:
    table = ValueTable(device)
    with device.computing():
        value = device.to_device(np.arange(1e6))
    table.keep(("g", "a"), value)
    del value
    assert table.spill() == 8_000_000
    with table.using([("g", "a")]) as values, device.computing():
        again = device.to_device(values["g", "a"])
        assert float(device.xp.sum(again)) == np.arange(1e6).sum()


def test_copies_overlap_with_kernels(device: CupyDevice) -> None:
    """Uploads go on while another thread's kernels run, and change nothing in them."""
    host = np.random.default_rng(2).random((2048, 2048))
    stop = threading.Event()
    wrong: list[int] = []

    def copy() -> None:
        with device.computing():
            while not stop.is_set():
                moved = device.arrived(device.upload(host))
                device.synchronize()
                if not np.array_equal(device.to_host(moved), host):
                    wrong.append(1)

    thread = threading.Thread(target=copy)
    thread.start()
    try:
        with device.computing():
            x = device.to_device(host)
            expected = device.to_host(x @ x)
            end = time.monotonic() + 3
            while time.monotonic() < end:
                y = device.to_device(host)
                assert np.array_equal(device.to_host(y @ y), expected)
    finally:
        stop.set()
        thread.join()
    assert not wrong


def test_a_session_uses_the_card() -> None:
    session = ar.init(num_cpus=2)
    tasks: list[Task] = []
    outputs = []
    for i in range(4):
        made = Task.of(DOUBLE, np.full(10**6, float(i)), tag="gpu")
        both = Task.of(ADD, Ref(made.key), Ref(made.key), tag="gpu")
        end = Task.of(TOTAL, Ref(both.key), tag="gpu")
        tasks += [made, both, end]
        outputs.append(end.key)
    run = session.submit(TaskGraph(tasks, outputs), target_seconds=1e-9)
    assert run.result(120) == [i * 4e6 for i in range(4)]
    assert all(placement.device != "cpu" for placement in run.placements()), run.explain()

    huge = Resources(gpu_memory_bytes=2**50)
    task = Task.of(SOLID, np.ones(1000), tag="gpu", resources=huge)
    run = session.submit(TaskGraph([task], [task.key]))
    assert (run.result(60)[0] == 2).all()
    assert "largest GPU" in run.placements()[0].reason
