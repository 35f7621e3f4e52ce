"""The answer of a policy (Placement) and the contract of a policy (Policy)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from agentic_ray.graph.task import Bundle

if TYPE_CHECKING:
    from agentic_ray.schedule.cost_model import CostModel
    from agentic_ray.schedule.view import ClusterView


@dataclass(frozen=True, slots=True)
class Placement:
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
    """

    name: str

    def place(
        self, ready: Sequence[Bundle], cluster: ClusterView, model: CostModel
    ) -> Sequence[Placement]: ...
