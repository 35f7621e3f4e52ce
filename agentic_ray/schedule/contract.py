"""The contract of a policy: the questions put to it, and the answers that can be carried out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from agentic_ray.errors import PolicyError
from agentic_ray.graph.task import Bundle
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.placement import Placement
from agentic_ray.schedule.records import Record
from agentic_ray.schedule.view import ClusterView, Executor


@runtime_checkable
class Policy(Protocol):
    """Object that decides where ready bundles go; pure, it keeps no cluster state of its own.

    ``place`` is given a window of ready bundles, most urgent first. It answers with placements
    for some of them; a bundle it leaves out stays ready and is offered again when something
    changes. It must place at least one bundle while a device that can run one has room and
    nothing is running.

    Some attributes are optional. ``plans_ahead`` (default False): bundles are offered also when no
    executor has room, a placement on a busy executor is kept as a plan, and plans are taken back
    and offered again when something better may be possible. ``order(priority, rank_seconds,
    submitted_seconds)``: ready bundles are offered in this order, smallest first; the default is by
    priority, then by rank. ``looks_ahead`` (default False): where it is worth the time,
    ``cluster.upcoming`` tells the bundles that are not ready yet.
    """

    name: str

    def place(
        self, ready: Sequence[Bundle], cluster: ClusterView, model: CostModel
    ) -> Sequence[Placement]: ...


def check_placements(
    placements: Iterable[Placement], offered: Mapping[str, Record], view: ClusterView, name: str
) -> tuple[list[Record], list[Executor]]:
    """Return the bundles that the policy ``name`` placed and the executor of each; refuse
    placements that cannot be carried out.

    Raises
    ------
    PolicyError
        A bundle was not offered or is placed twice, a device is unknown or of a wrong kind.
    """
    left, executors = dict(offered), view.executors
    records: list[Record] = []
    places: list[Executor] = []
    for placement in placements:
        key = placement[0]
        record = left.pop(key, None)
        if record is None:
            wrong = " twice" if key in offered else ", which was not offered"
            raise PolicyError(f"policy {name!r} placed {key!r}{wrong}")
        executor = executors.get(placement[1:3])
        if executor is None:
            node_id, device = placement[1:3]
            raise PolicyError(
                f"policy {name!r} placed {key!r} on unknown device {device!r} of node {node_id!r}"
            )
        if executor.kind not in record.lane[0]:
            raise PolicyError(
                f"policy {name!r} placed {key!r} on a {executor.kind}, it runs "
                f"on {' or '.join(record.lane[0])} only"
            )
        if not executor.suits(record.lane[2]):
            raise PolicyError(
                f"policy {name!r} placed {key!r} on node {executor.node_id!r}, which has not what "
                f"the bundle asks for: {record.resources}"
            )
        records.append(record)
        places.append(executor)
    return records, places
