"""Sessions on Ray, executors, and the loop that carries the Dispatcher's commands out."""

from agentic_ray.runtime.current import cluster, get_session, init, reserve, shutdown
from agentic_ray.runtime.datasets import blocks_of, dataset_of, is_dataset, schema_of
from agentic_ray.runtime.execute import check_cancelled, element_watcher, note
from agentic_ray.runtime.explain import explain, placement_table
from agentic_ray.runtime.failures import BundleCancelled, ElementFailure
from agentic_ray.runtime.joining import address_here
from agentic_ray.runtime.outcomes import Inline
from agentic_ray.runtime.run import Run, RunEvent
from agentic_ray.runtime.scope import JobScope, job_scope
from agentic_ray.runtime.session import Session
from agentic_ray.runtime.stages import Stages, StageStore, recorded, stage
from agentic_ray.runtime.values import (
    Stored,
    fetch,
    is_object_ref,
    pack,
    put,
    stored,
    writable,
)

__all__ = [
    "BundleCancelled",
    "ElementFailure",
    "Inline",
    "JobScope",
    "Run",
    "RunEvent",
    "Session",
    "StageStore",
    "Stages",
    "Stored",
    "address_here",
    "blocks_of",
    "check_cancelled",
    "cluster",
    "dataset_of",
    "element_watcher",
    "explain",
    "fetch",
    "get_session",
    "init",
    "is_dataset",
    "is_object_ref",
    "job_scope",
    "note",
    "pack",
    "placement_table",
    "put",
    "recorded",
    "reserve",
    "schema_of",
    "shutdown",
    "stage",
    "stored",
    "writable",
]
