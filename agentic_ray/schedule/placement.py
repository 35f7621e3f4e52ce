"""A policy's answer: where a bundle goes. Data only; the duties of a policy are in ``contract``."""

from __future__ import annotations

from typing import NamedTuple

new_tuple = tuple.__new__
"""``new_tuple(Placement, fields)`` takes a third of the time of ``Placement(...)``, which is a
Python function; used for tuples that are made at every decision."""


class Placement(NamedTuple):
    """Node and device that a bundle goes to, and why.

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
