"""The public facade: every public name is imported from here. Nothing is implemented here.

Names are loaded when they are first used, so that importing the package starts nothing and
costs little.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from agentic_ray import errors, interop, ml, sources, stream, tables
    from agentic_ray.array.together import compute, persist
    from agentic_ray.functions import function, map
    from agentic_ray.graph import Codelet, CostHint, Resources, Task, TaskGraph, codelet
    from agentic_ray.interop.executor import Executor
    from agentic_ray.interop.pool import Pool
    from agentic_ray.mapreduce import fold, map_reduce, map_reduce_job
    from agentic_ray.master import (
        Job,
        JobState,
        Master,
        Worker,
        load_workloads,
        worker,
        workload,
    )
    from agentic_ray.master.actor import RemoteMaster, find_master, start_master
    from agentic_ray.master.default import job, jobs, submit
    from agentic_ray.runtime import (
        Session,
        cluster,
        explain,
        get_session,
        init,
        reserve,
        shutdown,
        stage,
    )
    from agentic_ray.service import AsyncClient, Client
    from agentic_ray.telemetry import ClusterState, GpuState, NodeState

_HOME = {
    "Codelet": "graph",
    "CostHint": "graph",
    "Resources": "graph",
    "Task": "graph",
    "TaskGraph": "graph",
    "codelet": "graph",
    "compute": "array.together",
    "persist": "array.together",
    "fold": "mapreduce",
    "function": "functions",
    "map": "functions",
    "Executor": "interop.executor",
    "Pool": "interop.pool",
    "map_reduce": "mapreduce",
    "map_reduce_job": "mapreduce",
    "Job": "master",
    "JobState": "master",
    "Master": "master",
    "Worker": "master",
    "job": "master",
    "jobs": "master",
    "load_workloads": "master",
    "load_ipython_extension": "notebook",
    "submit": "master",
    "worker": "master",
    "workload": "master",
    "unload_ipython_extension": "notebook",
    "RemoteMaster": "master.actor",
    "find_master": "master.actor",
    "start_master": "master.actor",
    "Session": "runtime",
    "cluster": "runtime",
    "explain": "runtime",
    "get_session": "runtime",
    "init": "runtime",
    "reserve": "runtime",
    "shutdown": "runtime",
    "stage": "runtime",
    "AsyncClient": "service",
    "Client": "service",
    "ClusterState": "telemetry",
    "GpuState": "telemetry",
    "NodeState": "telemetry",
}
_MODULES = ("errors", "interop", "ml", "sources", "stream", "tables")

__all__ = [
    "AsyncClient",
    "Client",
    "ClusterState",
    "Codelet",
    "CostHint",
    "Executor",
    "GpuState",
    "Job",
    "JobState",
    "Master",
    "NodeState",
    "Pool",
    "RemoteMaster",
    "Resources",
    "Session",
    "Task",
    "TaskGraph",
    "Worker",
    "__version__",
    "cluster",
    "codelet",
    "compute",
    "errors",
    "explain",
    "find_master",
    "fold",
    "function",
    "get_session",
    "init",
    "interop",
    "job",
    "jobs",
    "load_workloads",
    "map",
    "map_reduce",
    "map_reduce_job",
    "ml",
    "persist",
    "reserve",
    "shutdown",
    "sources",
    "stage",
    "start_master",
    "stream",
    "submit",
    "tables",
    "worker",
    "workload",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(f"{__name__}.{name}")
    elif name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
