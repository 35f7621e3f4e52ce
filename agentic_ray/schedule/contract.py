"""The contract of a policy: the questions put to it, and the answers that can be carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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

    A policy may offer more, see `PlansAhead`, `LooksAhead` and `Orders`.
    """

    name: str

    def place(
        self, ready: Sequence[Bundle], cluster: ClusterView, model: CostModel
    ) -> Sequence[Placement]: ...


@runtime_checkable
class PlansAhead(Protocol):
    """A policy that plans ahead, if ``plans_ahead`` is true.

    Bundles are then offered also when no executor has room, a placement on a busy executor is kept
    as a plan, and plans are taken back and offered again when something better may be possible.
    """

    plans_ahead: bool


@runtime_checkable
class LooksAhead(Protocol):
    """A policy that looks ahead, if ``looks_ahead`` is true: where it is worth the time,
    ``cluster.upcoming`` tells it the bundles that are not ready yet."""

    looks_ahead: bool


@runtime_checkable
class Orders(Protocol):
    """A policy with an order of its own: ready bundles are offered in this order, smallest first.

    Without it they are offered by priority, then by rank.
    """

    def order(self, priority: int, rank_seconds: float, submitted_seconds: float) -> float: ...


def _strict_order(priority: int, rank: float, _submitted: float) -> float:
    """Order by classes of priority, then by the highest rank (seconds); the smallest goes first."""
    return -priority - rank / (1 + rank)


@dataclass(frozen=True, slots=True)
class Offers:
    """The optional parts of a policy, with defaults for those it leaves out."""

    plans_ahead: bool = False
    looks_ahead: bool = False
    order: Callable[[int, float, float], float] = _strict_order

    @classmethod
    def of(cls, policy: Policy) -> Offers:
        """Return what a policy offers."""
        return cls(
            isinstance(policy, PlansAhead) and policy.plans_ahead,
            isinstance(policy, LooksAhead) and policy.looks_ahead,
            policy.order if isinstance(policy, Orders) else _strict_order,
        )


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
