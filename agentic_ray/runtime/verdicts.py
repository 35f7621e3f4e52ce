"""Judges failed calls through Ray: the cause, and which values are lost."""

from __future__ import annotations

from dataclasses import dataclass

from ray import exceptions as ray_errors

from agentic_ray.errors import SessionError, TaskError
from agentic_ray.runtime.calls import Call
from agentic_ray.runtime.failures import cause_of, is_of_an_input
from agentic_ray.runtime.value_store import Resident, ValueStore
from agentic_ray.schedule.events import Cause


@dataclass(frozen=True, slots=True)
class Verdict:
    """Cause of a failed call, the error to show, and the keys of its inputs that are lost."""

    cause: Cause
    error: BaseException
    lost: tuple[str, ...] = ()


def judge(call: Call, error: BaseException, values: ValueStore) -> Verdict:
    """Find the cause of a failed call and the inputs that are lost.

    Parameters
    ----------
    values : ValueStore
        If a lost one is on a GPU, its host copy
        is forgotten, so that another can be made.
    """
    reason = error
    if isinstance(error, ray_errors.RayTaskError) and isinstance(error.cause, Exception):
        reason = error.cause
    held = {key: values.get((call.graph_id, key)) for key in call.inputs}
    kept = {key: value for key, value in held.items() if isinstance(value, Resident)}
    gone = tuple(key for key, value in kept.items() if value.copy() == "broken")
    if gone:
        return Verdict("input_lost", reason, gone)
    if is_of_an_input(error):
        lost_hex = getattr(reason, "object_ref_hex", None)
        large = {key: ref for key, ref in call.inputs.items() if not key.startswith("@")}
        lost = [key for key, ref in large.items() if ref.hex() == lost_hex] or list(large)
        if not lost:
            return Verdict("user", SessionError(f"an object given as input is lost: {reason}"))
        for key in lost:
            if key in kept:
                kept[key].copied = kept[key].ref = None
        # (one may have been computed anew since this call was sent)
        return Verdict("input_lost", reason, tuple(key for key in lost if held[key] is large[key]))
    cause = cause_of(reason)
    if cause is not None:
        return Verdict(cause, reason)
    return Verdict("user", TaskError(f"{type(reason).__name__}: {reason}"))
