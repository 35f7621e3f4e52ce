"""Descriptions of work: tasks, codelets, graphs, bundles, and the passes over them."""

from agentic_ray.graph.captured import Captured, capture, loaded, name_of
from agentic_ray.graph.codelets import Kernel, codelet
from agentic_ray.graph.keys import content_key
from agentic_ray.graph.passes import bundle, cull
from agentic_ray.graph.reduce import Fold, accepts_xp, aligned_spans, fold, span_shape, tree_reduce
from agentic_ray.graph.task import (
    Bundle,
    Codelet,
    CostHint,
    Ref,
    Resources,
    Tag,
    Task,
    TaskGraph,
    capture_codelet,
    find_refs,
    replace_refs,
)

__all__ = [
    "Bundle",
    "Captured",
    "Codelet",
    "CostHint",
    "Fold",
    "Kernel",
    "Ref",
    "Resources",
    "Tag",
    "Task",
    "TaskGraph",
    "accepts_xp",
    "aligned_spans",
    "bundle",
    "capture",
    "capture_codelet",
    "codelet",
    "content_key",
    "cull",
    "find_refs",
    "fold",
    "loaded",
    "name_of",
    "replace_refs",
    "span_shape",
    "tree_reduce",
]
