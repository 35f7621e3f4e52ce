"""Lower bounds on the makespan of a workload on a cluster: no schedule can be shorter."""

from __future__ import annotations

from collections.abc import Container, Sequence

from agentic_ray.graph.task import Task
from agentic_ray.schedule.workloads import Workload


def least_seconds(
    tasks: Sequence[Task],
    seconds: Sequence[float],
    workers: int,
    divided: Container[str] = (),
) -> float:
    """Return the larger of critical path and total work of tasks on equal workers.

    Parameters
    ----------
    tasks : sequence of Task
        In a valid order; dependencies on other tasks count as met.
    seconds : sequence of float
        Of each task on one worker.
    workers : int
    divided : container of str
        Keys of tasks whose work all workers can share.
    """
    ends: dict[str, float] = {}
    for task, own in zip(tasks, seconds, strict=True):
        begin = max([ends.get(key, 0.0) for key in task.dependencies], default=0.0)
        ends[task.key] = begin + (own / workers if task.key in divided else own)
    return max(sum(seconds) / workers, max(ends.values(), default=0.0))


def lower_bound_seconds(
    workload: Workload,
    *,
    cpu_speed: float,
    fastest_cpu: float,
    gpus: int = 0,
    gpu_speed: float = 1.0,
    gpu_other_speed: float = 1.0,
) -> float:
    """Return the larger of critical path and total work, both on the fastest devices there are.

    Parameters
    ----------
    cpu_speed, fastest_cpu : float
        Speed of all CPU slots together, and of the fastest of them.
    gpus : int
    gpu_speed, gpu_other_speed : float
        Speed of one GPU on accelerated codelets and on the others.

    Notes
    -----
    Transfers are left out. The work bound is the optimum of the linear program that divides
    each class of work among the two kinds of device; with two classes it has a closed form.
    """
    path: dict[str, float] = {}
    fast = other = 0.0
    for task in workload.graph:
        seconds = workload.seconds_of(task)
        accelerated = task.codelet.name in workload.accelerated
        best = fastest_cpu
        if gpus:
            best = max(best, gpu_speed if accelerated else gpu_other_speed)
        before = max((path[key] for key in task.dependencies), default=0.0)
        path[task.key] = before + seconds / best
        if accelerated:
            fast += seconds
        else:
            other += seconds
    return max(
        max(path.values(), default=0.0),
        _divide(fast, other, cpu_speed, gpus * gpu_speed, gpus * gpu_other_speed),
    )


def _divide(fast: float, other: float, cpu: float, gpu_fast: float, gpu_other: float) -> float:
    """Return the least time for two classes of work on CPUs (one speed for both) and GPUs (one for
    each)."""
    if not gpu_fast:
        return (fast + other) / cpu
    if gpu_fast < gpu_other:
        fast, other, gpu_fast, gpu_other = other, fast, gpu_other, gpu_fast
    # The GPUs first take the class at which they are comparatively better; a device that is done
    # first helps with the other class.
    if fast / gpu_fast >= other / cpu:
        return (fast + other) / (gpu_fast + cpu)
    # GPUs have time left t - fast / gpu_fast for the others: gpu_other * that + cpu * t = other.
    return (other + gpu_other * fast / gpu_fast) / (gpu_other + cpu)


def imbalance(busy: Sequence[float]) -> float:
    """Return L = (max - mean) / max of the busy seconds per slot."""
    longest = max(busy, default=0.0)
    return (longest - sum(busy) / len(busy)) / longest if longest > 0 else 0.0
