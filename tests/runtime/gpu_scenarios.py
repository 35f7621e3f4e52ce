"""Functions that the GPU tests run in a process of their own, by name: see `Scenarios`.

Ray is real, with made-up GPUs; NVML is the stand-in built from C, which ``State`` drives; the
device is the arena. Each scenario has a session of its own, checks what it claims and ends with an
error otherwise. Those that want as many GPUs of Ray share one Ray.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import ray

import agentic_ray as ar
from agentic_ray.config import Settings
from agentic_ray.graph import Codelet, Ref, Resources, Task, TaskGraph
from agentic_ray.runtime import Run, Session, gpu_nodes
from agentic_ray.runtime.embedded import init_embedded
from tests.support.programs import serve_scenarios
from tests.support.waiting import until

MIB = 2**20
UUIDS = tuple(f"GPU-{i}{i}{i}{i}aaaa-0000-0000-0000-00000000000{i}" for i in range(2))


class State:
    """The stand-in's state file: healthy GPUs, until told otherwise."""

    def __init__(self, gpus: int) -> None:
        self.path = Path(os.environ["NVML_STANDIN_STATE"])
        self.values: dict[str, object] = {"gpus": gpus}
        for i in range(gpus):
            self.values |= {
                f"gpu.{i}.uuid": UUIDS[i],
                f"gpu.{i}.name": "NVIDIA Test",
                f"gpu.{i}.total": 64 * MIB,
                f"gpu.{i}.free": 64 * MIB,
                f"gpu.{i}.used": 0,
                f"gpu.{i}.reserved": 0,
                f"gpu.{i}.mig": 0,
                f"gpu.{i}.bus": f"00000000:0{i + 1}:00.0",
            }
        self.write()

    def write(self, **changes: object) -> None:
        """Change values; ``__`` stands for a dot, None removes the key."""
        for name, value in changes.items():
            key = name.replace("__", ".")
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(f"{key}={value}\n" for key, value in self.values.items()))
        partial.replace(self.path)


@contextmanager
def session(
    gpus: int,
    ray_gpus: float | None = None,
    gpu_idle: float = 30.0,
    arena: Mapping[str, float] | None = None,
    **figures: object,
) -> Iterator[tuple[Session, State]]:
    """A session of its own; ``figures`` are written to the state, and ``arena`` to the settings of
    the device, before it starts."""
    state = State(gpus)
    state.write(**figures)
    Path(os.environ["ARENA_SETTINGS"]).write_text(json.dumps(arena or {}))
    count = gpus if ray_gpus is None else ray_gpus
    if ray.is_initialized() and ray.cluster_resources().get("GPU", 0.0) != count:
        ray.shutdown()
    if not ray.is_initialized():
        init_embedded(num_cpus=2, num_gpus=count, logging_level="ERROR")
    try:
        yield ar.init(poll_seconds=0.2, gpu_idle_release_seconds=gpu_idle), state
    finally:
        ar.shutdown()


# --- kernels -------------------------------------------------------------------------------


def _double(x: Any, *, xp: Any) -> Any:
    return x * 2


def _total(x: Any, *, xp: Any) -> float:
    return float(xp.sum(x))


def _add(x: Any, y: Any, *, xp: Any) -> Any:
    return x + y


def _slow(x: Any, *, xp: Any) -> float:
    time.sleep(0.2)
    return float(xp.sum(x))


def _where(x: Any, *, xp: Any) -> str:
    return "cpu" if xp is np else "gpu"


double = Codelet("double", _double, _double, chunk_axis=0)
solid_double = Codelet("solid_double", _double, _double)
total = Codelet("total", _total, _total)
add = Codelet("add", _add, _add)
slow = Codelet("slow", _slow, _slow)
gpu_only = Codelet("gpu_only", None, _total)
slow_gpu = Codelet("slow_gpu", None, _slow)


def rows(number: float, mib: float) -> np.ndarray:
    return np.full(int(mib * MIB / 8), number)


def devices(run: Run) -> set[str]:
    return {placement.device for placement in run.placements()}


def kinds(run: Run) -> list[str]:
    return [event.kind for event in run.events()]


def one(session: Session, codelet: Codelet, *args: Any, **options: Any) -> Run:
    task = Task.of(codelet, *args, tag=options.pop("tag", "gpu"), **options)
    return session.submit(TaskGraph([task], [task.key]))


def known_gpus(session: Session) -> set[str]:
    return {device for _, device in session._nodes.slots_by_device() if device != "cpu"}


# --- scenarios -------------------------------------------------------------------------------


def runs_on_gpus() -> None:
    with session(2) as (s, _):
        tasks: list[Task] = []
        outputs = []
        for i in range(6):
            first = Task.of(double, rows(i, 1), tag="gpu")
            second = Task.of(double, Ref(first.key), tag="gpu")
            end = Task.of(total, Ref(second.key), tag="gpu")
            tasks += [first, second, end]
            outputs.append(end.key)
        run = s.submit(TaskGraph(tasks, outputs), target_seconds=1e-9)
        assert run.result(60) == [i * 4 * MIB / 8 for i in range(6)]
        assert devices(run) == set(UUIDS), devices(run)

        # values that stayed on one GPU are used on the CPU and on both GPUs
        made = [Task.of(double, rows(i, 1), tag="gpu") for i in range(4)]
        sums = [
            Task.of(add, Ref(made[i].key), Ref(made[j].key), tag=tag)
            for i in range(4)
            for j in range(4)
            for tag in ("cpu", "gpu")
        ]
        # (the same key for both tags: they are the same work)
        sums = list({task.key: task for task in sums}.values())
        ends = [Task.of(total, Ref(task.key), tag="any") for task in sums]
        run = s.submit(TaskGraph([*made, *sums, *ends], [t.key for t in ends]), target_seconds=1e-9)
        assert run.result(60) == [(i + j) * 2 * MIB / 8 for i in range(4) for j in range(4)]

        # the caller's results are on the host
        run = one(s, double, rows(1.5, 2))
        value = run.result(60)[0]
        assert isinstance(value, np.ndarray)
        assert (value == 3.0).all()

        squares = ar.codelet(_square_sum)
        # sent along with the call; through the object store; larger than the device
        for size in (1_000, 200_000, 10_000_000):
            data = np.arange(float(size))
            answer = ar.map_reduce(squares, data, lambda a, b: a + b, tag="gpu", chunk_size=2**20)
            assert np.isclose(answer, float((data**2).sum())), answer


def _square_sum(block: Any, *, xp: Any) -> float:
    assert xp is not np, "it ran on a CPU"
    return float(xp.sum(block * block))


def ladder() -> None:
    """The arena has 16 MiB although NVML says 64: predictions are wrong, the ladder corrects."""
    with session(1, arena={"budget_bytes": 16 * MIB}) as (s, _):
        free = Resources(gpu_memory_bytes=1)  # a declaration that is far too low
        whole = rows(2.0, 10)
        run = one(s, double, whole, resources=free)
        assert (run.result(60)[0] == 4.0).all()
        assert run.result(60)[0].shape == whole.shape
        assert devices(run) == {UUIDS[0]}
        assert "memory: freed" in kinds(run), kinds(run)
        assert "memory: split" in kinds(run), kinds(run)

        run = one(s, solid_double, whole, resources=free)
        assert (run.result(60)[0] == 4.0).all()
        assert devices(run) == {"cpu"}
        assert "memory: freed" in kinds(run), kinds(run)
        assert "failed: memory" in kinds(run), kinds(run)
        assert "its GPU had too little memory" in run.placements()[0].reason

        # kept values make room for others and are still right afterwards
        tasks: list[Task] = []
        outputs = []
        for i in range(8):
            made = Task.of(double, rows(i, 3), tag="gpu", resources=free)
            end = Task.of(add, Ref(made.key), rows(1, 3), tag="gpu", resources=free)
            last = Task.of(total, Ref(end.key), tag="gpu", resources=free)
            tasks += [made, end, last]
            outputs.append(last.key)
        run = s.submit(TaskGraph(tasks, outputs), target_seconds=1e-9)
        assert run.result(120) == [(2 * i + 1) * 3 * MIB / 8 for i in range(8)]


def admission() -> None:
    with session(1) as (s, state):
        # larger than the GPU: in parts, or on the CPU, with a reason that says so
        need = Resources(gpu_memory_bytes=150 * MIB)
        run = one(s, double, rows(2.0, 4), resources=need)
        assert (run.result(60)[0] == 4.0).all()
        assert devices(run) == {UUIDS[0]}
        assert "runs in 3 parts" in run.placements()[0].reason, run.placements()[0].reason
        run = one(s, solid_double, rows(2.0, 4), resources=need)
        assert (run.result(60)[0] == 4.0).all()
        assert devices(run) == {"cpu"}
        assert "of the largest GPU" in run.placements()[0].reason
        run = one(s, gpu_only, rows(2.0, 1), resources=need)
        with pytest.raises(ar.errors.ImpossibleResourcesError, match="GPU memory"):
            run.result(60)

        # another process takes the memory: to the CPU, or wait for it
        state.write(gpu__0__free=4 * MIB, gpu__0__used=60 * MIB)
        executors = s._loop.dispatcher.view.executors
        gpu = next(e for e in executors.values() if e.kind == "gpu")
        until(lambda: (gpu.offer.memory_bytes or 0) < 8 * MIB)
        some = Resources(gpu_memory_bytes=20 * MIB)
        run = one(s, solid_double, rows(3.0, 1), resources=some)
        assert (run.result(60)[0] == 6.0).all()
        assert devices(run) == {"cpu"}
        assert "other processes hold the rest" in run.placements()[0].reason
        waiting = one(s, gpu_only, rows(2.0, 1), resources=some)
        assert not waiting.wait(2.0)
        state.write(gpu__0__free=64 * MIB, gpu__0__used=0)
        assert waiting.result(30) == [2 * MIB / 8]
        assert devices(waiting) == {UUIDS[0]}


def lost_gpu() -> None:
    with session(2) as (s, state):
        warm = one(s, double, rows(1, 1))
        warm.result(60)
        until(lambda: known_gpus(s) == set(UUIDS))

        tasks: list[Task] = []
        outputs = []
        for i in range(8):
            made = Task.of(double, rows(i, 1), tag="gpu")
            nap = Task.of(slow, Ref(made.key), tag="gpu")
            again = Task.of(total, Ref(made.key), tag="gpu")
            tasks += [made, nap, again]
            outputs += [nap.key, again.key]
        run = s.submit(TaskGraph(tasks, outputs), target_seconds=1e-9)
        time.sleep(0.4)
        state.write(**{"gpu__0__error__*": 15})  # NVML_ERROR_GPU_IS_LOST
        expected = [value for i in range(8) for value in (2 * i * MIB / 8,) * 2]
        assert run.result(90) == expected
        until(lambda: known_gpus(s) == {UUIDS[1]})
        run = s.submit(TaskGraph([Task.of(total, rows(5, 1), tag="gpu", key="after")], ["after"]))
        assert run.result(60) == [5 * MIB / 8]
        assert devices(run) == {UUIDS[1]}, devices(run)

        state.write(**{"gpu__0__error__*": None})
        until(lambda: known_gpus(s) == set(UUIDS), 60)


def killed_executor() -> None:
    """The process of a GPU executor dies with values in it: they are made again."""
    with session(1) as (s, _):
        one(s, double, rows(1, 1)).result(60)
        node_id, device = next(place for place in s._nodes.slots_by_device() if place[1] != "cpu")
        actor = s._nodes.executor(node_id, device)
        tasks: list[Task] = []
        for i in range(16):
            made = Task.of(double, rows(i, 1), tag="gpu")
            tasks += [made, Task.of(slow, Ref(made.key), tag="gpu")]
        outputs = [task.key for task in tasks[1::2]]
        pid = ray.get(actor.pid.remote())
        run = s.submit(TaskGraph(tasks, outputs), target_seconds=1e-9)
        until(lambda: run.placements())
        os.kill(pid, 9)
        assert run.result(90) == [2 * i * MIB / 8 for i in range(16)]
        assert "failed: crash" in kinds(run), kinds(run)
        until(lambda: known_gpus(s) == {UUIDS[0]})
        again = one(s, _where_codelet, rows(1, 1))
        assert again.result(60) == ["gpu"]

        # nobody waits for the one that dies now: the watcher finds out
        actor = s._nodes.executor(node_id, device)
        os.kill(ray.get(actor.pid.remote()), 9)
        until(lambda: known_gpus(s) and s._nodes.executor(node_id, device) is not actor)
        assert one(s, gpu_only, rows(2, 1)).result(60) == [2 * MIB / 8]


_where_codelet = Codelet("where", _where, _where)


def overlap() -> None:
    """A copy takes 0.2 s and computing 0.2 s: together they take little more than either."""
    with session(1, arena={"copy_seconds": 0.2}) as (s, _):
        one(s, total, rows(0, 1)).result(60)
        stored = [ar.runtime.put(rows(i, 1)) for i in range(6)]
        tasks = [Task.of(slow, value, tag="gpu") for value in stored]
        before = time.perf_counter()
        run = s.submit(TaskGraph(tasks, [task.key for task in tasks]), target_seconds=1e-9)
        assert run.result(60) == [i * MIB / 8 for i in range(6)]
        seconds = time.perf_counter() - before
        print(f"6 bundles of 0.2 s copy and 0.2 s compute: {seconds:.2f} s")
        assert seconds < 0.95 * 6 * 0.4, seconds
        own = sorted(placement.actual_seconds for placement in run.placements())
        assert own[3] < 0.35, own  # the copy was not part of most of them


def mig_instances() -> None:
    """One GPU in two instances, which Ray counts as one GPU: an executor each."""
    names = {f"MIG-0000000{j}-0000-0000-0000-000000000000" for j in range(2)}
    changes: dict[str, object] = {"gpu__0__mig": 1, "gpu__0__migs": 2}
    for j, name in enumerate(sorted(names)):
        changes |= {
            f"gpu__0__mig__{j}__{field}": value
            for field, value in {
                "uuid": name,
                "name": f"NVIDIA Test MIG {j}",
                "total": 32 * MIB,
                "free": 32 * MIB,
                "used": 0,
                "gi": j + 1,
                "ci": 0,
            }.items()
        }
    with session(1, **changes) as (s, _):
        until(lambda: known_gpus(s) == names)
        tasks = [Task.of(slow, rows(i, 1), tag="gpu") for i in range(6)]
        run = s.submit(TaskGraph(tasks, [task.key for task in tasks]), target_seconds=1e-9)
        assert run.result(60) == [i * MIB / 8 for i in range(6)]
        assert devices(run) == names, devices(run)


def two_sessions() -> None:
    """An idle session gives its GPU back, and the other waits for one that is in use."""
    with session(1, gpu_idle=0.5) as (first, _):
        assert one(first, gpu_only, rows(1, 1)).result(60) == [MIB / 8]
        until(lambda: not known_gpus(first))
        settings = Settings.resolve(poll_seconds=0.2, gpu_idle_release_seconds=0.5)
        second = Session(settings, "predictive")
        try:
            assert one(second, gpu_only, rows(2, 1)).result(60) == [2 * MIB / 8]
            assert first.model is not second.model
            until(lambda: not known_gpus(second))
            long = [Task.of(slow_gpu, rows(i, 1), key=f"long{i}") for i in range(40)]  # 8 s
            busy = first.submit(TaskGraph(long, [task.key for task in long]), target_seconds=1e-9)
            until(lambda: busy.placements())
            with mock.patch.object(gpu_nodes, "USUAL_START_SECONDS", 2.0):  # a submit waits so long
                waiting = one(second, gpu_only, rows(3, 1))
            assert not busy.done
            assert not waiting.done
            assert waiting.result(60) == [3 * MIB / 8]
            assert busy.result(60) == [i * MIB / 8 for i in range(40)]
            assert devices(waiting) == devices(busy) == {UUIDS[0]}
        finally:
            second.close()


def fewer_than_ray_counts() -> None:
    with session(1, ray_gpus=3) as (s, _):
        run = one(s, total, rows(1, 1))
        assert run.result(60) == [MIB / 8]
        until(lambda: known_gpus(s) == {UUIDS[0]})


def no_gpu_at_all() -> None:
    """What can only run on a GPU is refused at once, what can run elsewhere does."""
    with session(0) as (s, _):
        assert one(s, total, rows(1, 1)).result(60) == [MIB / 8]
        before = time.perf_counter()
        with pytest.raises(ar.errors.NoSuitableDeviceError, match="no GPU"):
            one(s, gpu_only, rows(1, 1)).result(60)
        assert time.perf_counter() - before < 2.0


SCENARIOS = (
    # (in the order of how many GPUs of Ray they want: so four Rays are enough)
    *(runs_on_gpus, lost_gpu),
    *(mig_instances, ladder, admission, killed_executor, overlap, two_sessions),
    fewer_than_ray_counts,
    no_gpu_at_all,
)

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    serve_scenarios({scenario.__name__: scenario for scenario in SCENARIOS})
