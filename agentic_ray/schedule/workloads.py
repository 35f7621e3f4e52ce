"""Graph generators for the simulator: tasks, their seconds on a device of speed 1, and their bytes.

The figures are made up, in the proportions of the real algorithms; nothing here is executed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph.task import Codelet, CostHint, Ref, Task, TaskGraph

FLOPS_PER_SECOND = 1e9
"""Speed of a device of speed 1: a task with a flops hint takes its flops over this, in seconds."""
BYTES_PER_SECOND = 1e9
"""The bandwidth for which the generators choose sizes of values."""
MOVE_SHARE = 0.05
"""Seconds to move a value, as a share of the seconds that the main kernel on values of that size
takes on the average device of `simulate.mixed_cluster`."""
AVERAGE_SPEED = (64 * 4.5 + 16 * 20) / (64 + 16)
"""Average speed of the 64 CPUs and 16 GPUs there, on accelerated codelets."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A graph with the truth about it, which a scheduler may or may not be told.

    Parameters
    ----------
    name : str
    graph : TaskGraph
    seconds : mapping
        Seconds on a device of speed 1, by codelet, for tasks whose cost hint names no flops.
    value_bytes : mapping
        Bytes of a value, by the codelet that makes it, for tasks whose hint says none written.
    accelerated : frozenset of str
        Codelets that a GPU is fast at.
    """

    name: str
    graph: TaskGraph
    seconds: Mapping[str, float] = field(default_factory=dict)
    value_bytes: Mapping[str, int] = field(default_factory=dict)
    accelerated: frozenset[str] = frozenset()

    def seconds_of(self, task: Task) -> float:
        """Return the seconds of ``task`` on a device of speed 1."""
        flops = task.cost.flops
        return flops / FLOPS_PER_SECOND if flops else self.seconds[task.codelet.name]

    def bytes_of(self, task: Task) -> int:
        """Return the bytes of the value that ``task`` makes."""
        return task.cost.written_bytes or self.value_bytes.get(task.codelet.name, 0)


def _simulated(*_: Any) -> None:
    """Stand in for the kernels of a workload that is only simulated."""


def codelet(name: str) -> Codelet:
    """Make a codelet for simulations, with a version for each kind of device."""
    return Codelet(name, _simulated, _simulated)


def _move_bytes(kernel_seconds: float) -> int:
    """Return the bytes of a value whose main kernel takes ``kernel_seconds`` at speed 1."""
    return int(MOVE_SHARE * kernel_seconds / AVERAGE_SPEED * BYTES_PER_SECOND)


def _task(what: Codelet, key: str, *inputs: str) -> Task:
    return Task.of(what, *map(Ref, inputs), key=key)


def _tree(what: Codelet, leaves: Sequence[str], fan_in: int, prefix: str) -> list[Task]:
    """Make the tasks that combine ``leaves`` to one value, ``fan_in`` at a time."""
    tasks: list[Task] = []
    level = list(leaves)
    depth = 0
    while len(level) > 1:
        groups = [level[i : i + fan_in] for i in range(0, len(level), fan_in)]
        level = []
        for i, group in enumerate(groups):
            if len(group) == 1:
                level += group
                continue
            tasks.append(_task(what, f"{prefix}/{depth}/{i}", *group))
            level.append(tasks[-1].key)
        depth += 1
    return tasks


def map_reduce(maps: int = 4096, fan_in: int = 8) -> Workload:
    """Build a graph of ``maps`` equal chunks and a tree that adds them up."""
    _at_least(maps, 1)
    map_, combine = codelet("map"), codelet("combine")
    tasks = [_task(map_, f"map/{i}") for i in range(maps)]
    tasks += _tree(combine, [task.key for task in tasks], fan_in, "combine")
    return Workload(
        "map_reduce",
        TaskGraph(tasks, [tasks[-1].key]),
        {"map": 1.0, "combine": 0.02},
        dict.fromkeys(("map", "combine"), _move_bytes(0.02)),
        frozenset({"map"}),
    )


def tiled_cholesky(tiles: int = 40) -> Workload:
    """Build the right-looking Cholesky of ``tiles`` x ``tiles`` tiles (Buttari et al., 2009)."""
    _at_least(tiles, 1)
    potrf, trsm, syrk, gemm = map(codelet, ("potrf", "trsm", "syrk", "gemm"))
    newest: dict[tuple[int, int], str] = {}
    tasks: list[Task] = []

    def add(what: Codelet, key: str, at: tuple[int, int], *inputs: str) -> None:
        before = (newest[at],) if at in newest else ()
        tasks.append(_task(what, key, *before, *inputs))
        newest[at] = key

    for k in range(tiles):
        add(potrf, f"potrf/{k}", (k, k))
        for i in range(k + 1, tiles):
            add(trsm, f"trsm/{i}/{k}", (i, k), f"potrf/{k}")
        for i in range(k + 1, tiles):
            add(syrk, f"syrk/{i}/{k}", (i, i), f"trsm/{i}/{k}")
            for j in range(k + 1, i):
                add(gemm, f"gemm/{i}/{j}/{k}", (i, j), f"trsm/{i}/{k}", f"trsm/{j}/{k}")
    return Workload(
        "tiled_cholesky",
        TaskGraph(tasks, list(newest.values())),
        {"potrf": 1 / 6, "trsm": 0.5, "syrk": 0.5, "gemm": 1.0},  # flops of a tile, gemm = 1
        dict.fromkeys(("potrf", "trsm", "syrk", "gemm"), _move_bytes(1.0)),
        frozenset({"trsm", "syrk", "gemm"}),
    )


def tsqr(blocks: int = 2048) -> Workload:
    """Build the QR of a tall matrix: one of every block, then of pairs of triangles up a tree
    (Demmel et al., SIAM J. Sci. Comput. 34(1), 2012)."""
    _at_least(blocks, 1)
    leaf, pair = codelet("qr"), codelet("qr_pair")
    tasks = [_task(leaf, f"qr/{i}") for i in range(blocks)]
    tasks += _tree(pair, [task.key for task in tasks], 2, "qr_pair")
    return Workload(
        "tsqr",
        TaskGraph(tasks, [tasks[-1].key]),
        {"qr": 1.0, "qr_pair": 0.05},
        dict.fromkeys(("qr", "qr_pair"), _move_bytes(0.05)),  # triangles, not blocks
        frozenset({"qr"}),
    )


def kmeans(blocks: int = 1024, iterations: int = 5, fan_in: int = 8) -> Workload:
    """Build Lloyd's iterations over blocks that are loaded once and then stay where they are."""
    _at_least(blocks, 1)
    _at_least(iterations, 1)
    load, assign, combine, centers = map(codelet, ("load", "assign", "combine", "centers"))
    tasks = [_task(load, f"load/{i}") for i in range(blocks)]
    previous: tuple[str, ...] = ()
    for step in range(iterations):
        partial = [
            _task(assign, f"assign/{step}/{i}", f"load/{i}", *previous) for i in range(blocks)
        ]
        tree = _tree(combine, [task.key for task in partial], fan_in, f"combine/{step}")
        tasks += [*partial, *tree]
        tasks.append(_task(centers, f"centers/{step}", tasks[-1].key))
        previous = (tasks[-1].key,)
    return Workload(
        "kmeans",
        TaskGraph(tasks, previous),
        {"load": 0.2, "assign": 1.0, "combine": 0.01, "centers": 0.01},
        {"load": _move_bytes(1.0)}
        | dict.fromkeys(("assign", "combine", "centers"), _move_bytes(0.01)),
        frozenset({"assign"}),
    )


def random_layered(
    tasks: int = 2000,
    layers: int = 20,
    ccr: float = 0.02,
    degree: int = 3,
    seed: int = 0,
    seconds: float = 1.0,
) -> Workload:
    """Build a random graph of layers; every task takes up to ``degree`` values of the layer before.

    Parameters
    ----------
    ccr : float
        Mean seconds to move a value over the mean seconds of a task at speed 1.
    seconds : float
        Mean seconds of a task at speed 1.
    """
    _at_least(tasks, 1)
    _at_least(layers, 1)
    rng = random.Random(seed)
    codelets = [codelet("dense"), codelet("sparse")]
    made: list[Task] = []
    before: list[str] = []
    for layer in range(min(layers, tasks)):
        count = tasks // layers + (layer < tasks % layers)
        now: list[str] = []
        for i in range(max(1, count)):
            own = seconds * rng.uniform(0.1, 1.9)
            size = int(rng.uniform(0, 2) * ccr * seconds * BYTES_PER_SECOND)
            inputs = rng.sample(before, min(len(before), rng.randint(1, degree)))
            made.append(
                Task.of(
                    rng.choice(codelets),
                    *map(Ref, inputs),
                    key=f"t{layer}/{i}",
                    cost=CostHint(flops=own * FLOPS_PER_SECOND, written_bytes=size),
                )
            )
            now.append(made[-1].key)
        before = now
    used = {key for task in made for key in task.dependencies}
    outputs = [task.key for task in made if task.key not in used]
    return Workload("random_layered", TaskGraph(made, outputs), accelerated=frozenset({"dense"}))


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "map_reduce": map_reduce,
    "tiled_cholesky": tiled_cholesky,
    "tsqr": tsqr,
    "kmeans": kmeans,
    "random_layered": random_layered,
}
"""Ready-made workloads by name."""


def get_workload(name: str) -> Workload:
    """Return the ready-made workload of this name.

    Raises
    ------
    InvalidArgumentError
        There is no workload of this name.
    """
    if name not in WORKLOADS:
        names = ", ".join(sorted(WORKLOADS))
        raise InvalidArgumentError(f"unknown workload {name!r}; there are: {names}")
    return WORKLOADS[name]()


def _at_least(value: int, least: int) -> None:
    if not (value >= least and math.isfinite(value)):
        raise InvalidArgumentError(f"a workload needs at least {least} of each part, not {value}")
