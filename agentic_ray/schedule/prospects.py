"""Predicts how long executors take for some tasks, to compare with the caller's process. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from agentic_ray.graph.task import Task
from agentic_ray.schedule.bounds import least_seconds
from agentic_ray.schedule.calibration import Calibration
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.cutting import usual_seconds


class OnExecutors(NamedTuple):
    """Prediction of some tasks' time on the executors.

    Parameters
    ----------
    seconds : float
        From sending the tasks to having their values.
    seen_seconds : list of float
        Of each task by itself; infinite where no executor ran such a task.
    slots : int
        Bundles that run at once.
    rates : Calibration
        Of a typical node.
    """

    seconds: float
    seen_seconds: list[float]
    slots: int
    rates: Calibration


def on_executors(
    tasks: Sequence[Task],
    moved_bytes: int,
    in_caller: Sequence[float | None],
    model: CostModel,
    slots: int,
) -> OnExecutors:
    """Predict the executors' seconds for tasks.

    Parameters
    ----------
    moved_bytes : int
        Bytes that go through the object store: what the tasks are given, and what is wanted.
    in_caller : sequence of float or None
        Seconds that each task took in the caller's process. They say more than its cost does of a
        task that no executor has run.
    slots : int
        Bundles that run at once.
    """
    each: list[float] = []
    seen: list[float] = []
    for task, own in zip(tasks, in_caller, strict=True):
        predicted = max(usual_seconds(task, model), 0.0)
        was_seen = model.times_seen(task, "cpu") > 0
        each.append(predicted if was_seen or own is None else own)
        seen.append(predicted if was_seen else math.inf)
    seconds = least_seconds(tasks, each, slots) + 2 * model.call_overhead_seconds
    seconds += moved_bytes / model.calibration.store_bytes_per_second
    return OnExecutors(seconds, seen, slots, model.calibration)
