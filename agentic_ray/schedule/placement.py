"""The answer of a policy (Placement) and the contract of a policy (Policy)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from agentic_ray.errors import PolicyError
from agentic_ray.graph.task import Bundle

if TYPE_CHECKING:
    from agentic_ray.schedule.cost_model import CostModel
    from agentic_ray.schedule.records import Record
    from agentic_ray.schedule.view import ClusterView, Executor


class Placement(NamedTuple):
    """Where a bundle goes and why.

    Parameters
    ----------
    bundle : str
        Key of the bundle.
    node_id : str
    device : str
        ``"cpu"``, or the UUID of a GPU.
    predicted_start_seconds, predicted_finish_seconds : float or None
        On the dispatcher's clock; None when nothing is known of the cost yet.
    reason : str
        A sentence for the user.
    """

    bundle: str
    node_id: str
    device: str
    predicted_start_seconds: float | None
    predicted_finish_seconds: float | None
    reason: str

    @property
    def predicted_seconds(self) -> float | None:
        if self.predicted_start_seconds is None or self.predicted_finish_seconds is None:
            return None
        return self.predicted_finish_seconds - self.predicted_start_seconds


@runtime_checkable
class Policy(Protocol):
    """Decides where ready bundles go; pure, it keeps no cluster state of its own.

    ``place`` is given a window of ready bundles, most urgent first. It answers with placements
    for some of them; a bundle it leaves out stays ready and is offered again when something
    changes. It must place at least one bundle while a device that can run one has room and
    nothing is running.

    Some attributes are optional. ``plans_ahead`` (default False): bundles are offered also when
    no executor has room, a placement on a busy executor is kept as a plan, and plans are taken
    back and offered again when something better may be possible. ``order(priority, rank_seconds,
    submitted_seconds)``: what is ready is offered in this order, smallest first; the default is
    by priority, then by rank. ``looks_ahead`` (default False): where it is worth the time,
    ``cluster.upcoming`` says what is not ready yet.
    """

    name: str

    def place(
        self, ready: Sequence[Bundle], cluster: ClusterView, model: CostModel
    ) -> Sequence[Placement]: ...


def check_placements(
    placements: Iterable[Placement], offered: Mapping[str, Record], view: ClusterView, name: str
) -> list[Executor]:
    """The executors that the policy ``name`` placed on; refuses what cannot be carried out.

    Raises
    ------
    PolicyError
        A bundle was not offered or is placed twice, a device is unknown or of a wrong kind.
    """
    placed: set[str] = set()
    places: list[Executor] = []
    for placement in placements:
        key = placement.bundle
        record = offered.get(key)
        if record is None:
            raise PolicyError(f"policy {name!r} placed {placement.bundle!r}, which was not offered")
        if key in placed:
            raise PolicyError(f"policy {name!r} placed {placement.bundle!r} twice")
        placed.add(key)
        executor = view.executors.get((placement.node_id, placement.device))
        if executor is None:
            raise PolicyError(
                f"policy {name!r} placed {placement.bundle!r} on unknown device "
                f"{placement.device!r} of node {placement.node_id!r}"
            )
        if executor.kind not in record.lane[0]:
            raise PolicyError(
                f"policy {name!r} placed {placement.bundle!r} on a {executor.kind}, it runs "
                f"on {' or '.join(record.lane[0])} only"
            )
        places.append(executor)
    return places
