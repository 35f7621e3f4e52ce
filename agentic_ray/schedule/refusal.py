"""Reasons why a cluster can never run a bundle, told at submit and not after waiting. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from agentic_ray.errors import (
    ImpossibleResourcesError,
    InterruptedJobError,
    NoNodeError,
    NoSuitableDeviceError,
    OutOfHostMemoryError,
    PlacementError,
)
from agentic_ray.graph.task import CARD, Bundle, Resources
from agentic_ray.schedule.admission import can_split
from agentic_ray.schedule.events import MemoryUse
from agentic_ray.schedule.records import Record, Traits, codelet_names
from agentic_ray.schedule.scarcity import who_holds
from agentic_ray.schedule.view import ClusterView

_ON_GPUS = (("gpu",), (CARD,))
"""Device kinds of bundles that run on GPUs only."""


def refusal(
    bundles: Iterable[tuple[Bundle, Traits]], view: ClusterView, *, may_grow: bool
) -> tuple[PlacementError, Bundle] | None:
    """Return the error for the first bundle that this cluster can never run, and the bundle.

    Alike bundles are checked once. Before the first node is known only bundles that no cluster can
    run are refused. If the cluster ``may_grow``, a kind of device that it lacks may come.
    """
    alike: dict[tuple[tuple[str, ...], Resources, bool], Bundle] = {}
    last = None
    for bundle, traits in bundles:
        if traits is last:
            continue
        last = traits
        kinds = traits.lane[0]
        alike.setdefault((kinds, traits.resources, kinds in _ON_GPUS and can_split(bundle)), bundle)
    for (kinds, _, _), bundle in alike.items():
        if not kinds:
            return no_device(bundle, view), bundle
    if not view.executors:
        return None
    states = view.state.alive_nodes
    cpus = max((s.cpus_total for s in states), default=0.0)
    cpus = cpus or max(executor.slots for executor in view.executors.values())
    memory = max((s.memory_total_bytes or 0 for s in states), default=0)
    gpu_memory = _largest_gpu_bytes(view)
    for (kinds, need, splits), bundle in alike.items():
        names = codelet_names(bundle)
        if not view.has(kinds):
            if may_grow:
                continue
            return no_device(bundle, view), bundle
        if need.cpus > max(cpus, 1):
            text = f"{names} asks for {need.cpus:g} CPUs, the largest node has {cpus:g}"
            return ImpossibleResourcesError(text), bundle
        if memory and need.memory_bytes > memory:
            text = f"{names} asks for {need.memory_bytes} bytes of memory, the largest node "
            return ImpossibleResourcesError(text + f"has {memory}"), bundle
        if kinds in _ON_GPUS and not splits and need.gpu_memory_bytes > (gpu_memory or 1 << 62):
            text = f"{names} asks for {need.gpu_memory_bytes} bytes of GPU memory, the largest GPU "
            text += f"has {gpu_memory}, and it can neither be split nor run on a CPU"
            return ImpossibleResourcesError(text), bundle
    return None


def no_device(bundle: Bundle, view: ClusterView) -> NoSuitableDeviceError:
    """Return the error for a bundle that no device here can run; it lists the devices."""
    kinds = ["gpu" if kind == CARD else kind for kind in bundle.kinds()]
    wanted = " or ".join(kinds) or "no device at all (its tag excludes every version)"
    executors = view.executors.values()
    resources = bundle.resources
    if resources.where and view.has(bundle.kinds()):
        there = sorted(
            {f"{key}={label}" for e in executors for key, label in e.offer.labels.items()}
        )
        custom = sorted(
            {f"{n}: {amount:g}" for e in executors for n, amount in e.offer.custom.items()}
        )
        return NoSuitableDeviceError(
            f"{codelet_names(bundle)} asks for {resources}, and no node has that. Labels of nodes: "
            f"{', '.join(there) or 'none'}; custom resources: {', '.join(custom) or 'none'}"
        )
    cpus = sum(e.slots for e in executors if e.kind == "cpu")
    gpus = sum(1 for e in executors if e.kind != "cpu")
    nodes = len({e.node_id for e in executors})
    return NoSuitableDeviceError(
        f"{codelet_names(bundle)} can only run on {wanted}, and this cluster has "
        f"{nodes} node(s) with {cpus} CPU slots and {gpus or 'no'} GPU(s); give the codelet a cpu "
        "implementation or add a GPU node"
    )


def too_large(record: Record, error: BaseException) -> OutOfHostMemoryError:
    """Return the error for a bundle that runs out of a node's memory although it is alone there."""
    raised = OutOfHostMemoryError(
        f"{codelet_names(record.bundle)} needs more memory than a node has, with nothing else of "
        f"this session running there, and cannot be made smaller; use smaller chunks or larger "
        f"nodes. Last: {error}"
    )
    raised.__cause__ = error
    return raised


def starved(record: Record, seconds: float, use: MemoryUse, error: BaseException) -> Exception:
    """Return the error for a bundle that waited in vain for memory that other programs hold."""
    raised = OutOfHostMemoryError(
        f"{codelet_names(record.bundle)} was killed for want of memory that other programs hold, "
        f"and was tried again for {seconds:.0f} s (setting memory_wait_seconds) while they held "
        f"it: {who_holds(use)}. End them, or use another machine. Last: {error}"
    )
    raised.__cause__ = error
    return raised


def interrupted(bundle: Bundle, error: BaseException) -> InterruptedJobError:
    """Return the error for a bundle with effects that may have begun and was lost."""
    raised = InterruptedJobError(
        f"{codelet_names(bundle)} has effects (has_effects=True) and was lost after it may have "
        f"begun, so it is not run again: look up whether its effect happened. Bundle "
        f"{bundle.key}: {error}"
    )
    raised.__cause__ = error
    return raised


def no_node(seconds: float) -> NoNodeError:
    """Return the error for work that waited in vain for a node."""
    return NoNodeError(
        f"no node of the cluster has taken work for {seconds:.0f} s (setting no_node_seconds): "
        "there is none, or none with a CPU. Start one with `ray start --address=...`, see "
        "`ray status`, and call again"
    )


def _largest_gpu_bytes(view: ClusterView) -> int | None:
    """Return the memory of the largest GPU; None when there is none or one's memory is unknown."""
    totals = [gpu.offer.memory_total_bytes for gpu in view.cards()]
    known = [total for total in totals if total is not None]
    return max(known) if known and len(known) == len(totals) else None
