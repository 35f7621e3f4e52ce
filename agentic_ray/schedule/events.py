"""Events, which go into the Dispatcher, and commands, which come out of it. Pure data.

Times are seconds of the adapter's clock (monotonic in the real runtime, virtual in the simulator);
the Dispatcher knows no other clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from agentic_ray.graph.task import Bundle
from agentic_ray.schedule.placement import Placement
from agentic_ray.telemetry.state import ClusterState, NodeState

Cause = Literal[
    "user", "system", "crash", "pressure", "memory", "card_full", "input_lost", "node_lost"
]
"""Reason why a bundle failed: the user's code raised; its executor could not be reached; the
process it ran in died, or was killed because its node ran out of memory; the device had too little
memory; other programs took the memory of the card that it was admitted for, before it began; an
input could not be fetched; its node was lost."""

Process = Literal["shared", "own", "watched", "function"]
"""Process in which a bundle runs on a device: the executor's, shared with other bundles; a process
of its own; one that a second process watches, which reports how it died; or, on a GPU, a warm
process of its function, which the executor keeps."""


INLINE_BYTES = 64 * 1024
"""Values up to this size travel inside reports and calls instead of the object store."""


# --- events ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GraphSubmitted:
    """Submission of a graph: its bundles, in topological order. ``bundle_ids`` in events index into
    them: bundle ``i`` of the graph has the id ``first_id + i`` that `Dispatcher.next_bundle_id`
    gave.
    """

    time: float
    graph_id: str
    bundles: tuple[Bundle, ...]
    outputs: tuple[str, ...]
    priority: int = 0


@dataclass(frozen=True, slots=True)
class BundleStarted:
    time: float
    bundle_id: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Location:
    """Place and size of a value. ``node_id`` None: it is in the caller's own memory, safe.
    ``device``: the GPU that holds it, None when it is in host memory. ``sent_seconds``: when it set
    out to every node that may need it, None where a value is moved only when it is asked for."""

    size_bytes: int
    node_id: str | None
    device: str | None = None
    sent_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """A value that was made; the other fields are as in `Location`."""

    key: str
    size_bytes: int
    node_id: str | None
    device: str | None = None
    sent_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """Values that were moved from one node to another, and the seconds that took."""

    source: str
    destination: str
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class BundleFinished:
    """Report of a bundle that ended well. ``task_seconds`` are measured on the executor, one figure
    a task, in order. ``transfers``: the moves of its inputs that were timed. ``device_peaks``: of a
    function on a card, numbers of items and the bytes that its process held there at most."""

    time: float
    bundle_id: int
    attempt: int
    seconds: float
    task_seconds: tuple[float, ...] = ()
    values: tuple[ValueInfo, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    device_peaks: tuple[tuple[int, int], ...] = ()


class Holder(NamedTuple):
    """A process that holds memory."""

    name: str
    pid: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory of a node, by who held it, when a process of ours was killed for want of it.

    Parameters
    ----------
    total_bytes, free_bytes : int
        Memory of the node, after the kill.
    own_bytes : int
        Memory that the killed process held; 0 where that is not known.
    others_bytes : int
        Memory of processes that belong neither to Ray nor to the caller.
    holders : tuple of Holder
        The largest of those processes.
    """

    total_bytes: int
    free_bytes: int
    own_bytes: int
    others_bytes: int
    holders: tuple[Holder, ...] = ()


@dataclass(frozen=True, slots=True)
class BundleFailed:
    """Report of a bundle that failed. ``memory``: with "pressure", who held the node's memory; None
    where that is not known. ``begun`` False: the bundle surely had not begun, since it could not be
    sent. ``device_peaks``: as in `BundleFinished`."""

    time: float
    bundle_id: int
    attempt: int
    cause: Cause
    error: BaseException
    memory: MemoryUse | None = None
    begun: bool = True
    device_peaks: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ValueLost:
    time: float
    graph_id: str
    key: str


@dataclass(frozen=True, slots=True)
class DeviceSlots:
    """A device of a node and the number of bundles that it runs at once.

    Bundles in flight may use ``memory_bytes`` together; ``memory_total_bytes`` is the device's
    memory if nobody else uses it; None when unknown. A ``"card"`` is a GPU that only runs functions
    in processes of their own: the library that computes with arrays there is missing.
    """

    device: str
    kind: Literal["cpu", "gpu", "card"]
    slots: int
    speed: float = 1.0
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class NodeUp:
    """A node is there, or has other slots than before. Others hold ``awaited_gpus`` of its GPUs,
    which come when they give them back: bundles that need a GPU wait for them. ``links``: pairs of
    its GPUs, with a figure that is larger for a quicker connection."""

    time: float
    node: NodeState
    devices: tuple[DeviceSlots, ...]
    awaited_gpus: int = 0
    links: tuple[tuple[str, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class NodeLost:
    time: float
    node_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class GpuLost:
    """A GPU is gone. ``copied``: values (graph id, key) whose copies its node has in host
    memory."""

    time: float
    node_id: str
    device: str
    reason: str
    copied: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Telemetry:
    time: float
    cluster: ClusterState


@dataclass(frozen=True, slots=True)
class Tick:
    time: float


@dataclass(frozen=True, slots=True)
class CancelRequested:
    time: float
    graph_id: str


@dataclass(frozen=True, slots=True)
class GraphReleased:
    """The caller has the results (or gave them up); the graph can be forgotten."""

    time: float
    graph_id: str


@dataclass(frozen=True, slots=True)
class LeaseRequested:
    """Request for a part of ``cards`` GPUs on each of ``nodes`` nodes, all at once.

    ``share`` is the fraction of each card (1: the whole card and nobody else there),
    ``gpu_memory_bytes`` the memory of each. ``cpus`` and ``memory_bytes`` are taken once a node.
    Without cards (``cards=0``) it is a request for CPUs and memory alone, and its places are
    the nodes' CPU executors. It is given up at ``until_seconds``.
    """

    time: float
    lease_id: str
    cards: int = 1
    share: float = 0.0
    gpu_memory_bytes: int = 0
    cpus: float = 0.0
    memory_bytes: int = 0
    nodes: int = 1
    until_seconds: float = float("inf")


@dataclass(frozen=True, slots=True)
class LeaseReleased:
    """A lease is not needed any more, whether it was granted or waits."""

    time: float
    lease_id: str
    reason: str = "it was released"


Event = (
    GraphSubmitted
    | BundleStarted
    | BundleFinished
    | BundleFailed
    | ValueLost
    | NodeUp
    | NodeLost
    | GpuLost
    | Telemetry
    | Tick
    | CancelRequested
    | GraphReleased
    | LeaseRequested
    | LeaseReleased
)


# --- commands ----------------------------------------------------------------------------


class Start(NamedTuple):
    """Order to send a bundle. ``gpu_memory_bytes`` is the predicted working set on a GPU, ``parts``
    the number of parts along its chunk axis in which the bundle runs there from the outset.
    ``copy``: another attempt is under way and late; the first to finish wins. ``process``: the kind
    of process that runs it (a GPU's is always shared).

    A named tuple like `Placement`: one is made for every attempt, and a frozen dataclass takes
    four times as long to make."""

    graph_id: str
    bundle_id: int
    attempt: int
    bundle: Bundle
    placement: Placement
    gpu_memory_bytes: int = 0
    parts: int = 1
    copy: bool = False
    process: Process = "shared"


@dataclass(frozen=True, slots=True)
class Cancel:
    bundle_id: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Recompute:
    """Values that are gone and will be made again; the adapter drops all copies of them."""

    graph_id: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """No bundle needs these values any more."""

    graph_id: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """A bundle is two from now on: ``bundle_id`` is the second half, ``first_id`` the first."""

    graph_id: str
    bundle_id: int
    second: Bundle
    first_id: int
    first: Bundle


@dataclass(frozen=True, slots=True)
class Quarantine:
    node_id: str
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class RequestResources:
    """Capacity that waiting work could use beyond the cluster's, for the autoscaler."""

    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True)
class FinishGraph:
    graph_id: str


@dataclass(frozen=True, slots=True)
class FailGraph:
    """A graph has failed. ``bundle`` is the one at fault when there is one."""

    graph_id: str
    error: BaseException
    bundle: Bundle | None = None


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    """A lease is granted: node and device of each card, and the bytes set aside there."""

    lease_id: str
    places: tuple[tuple[str, str], ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """A lease has ended, or will not be granted: because nothing here could (``impossible``), its
    time was over, its node or device was lost, or it was released."""

    lease_id: str
    reason: str
    impossible: bool = False
    timed_out: bool = False
    lost: bool = False


Command = (
    Start
    | Cancel
    | Recompute
    | Release
    | Split
    | Quarantine
    | RequestResources
    | FinishGraph
    | FailGraph
    | LeaseGranted
    | LeaseEnded
)
