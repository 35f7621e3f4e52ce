"""Says in plain text where work ran, or would run, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentic_ray.errors import InvalidTypeError
from agentic_ray.schedule.metrics import PlacementRecord

_HEADER = ("bundle", "node", "device", "predicted s", "actual s", "reason")


def explain(work: Any) -> str:
    """Return the plan of ``work``, and for finished work where each bundle ran and why.

    Parameters
    ----------
    work : job, run, map-reduce or array
        Anything with a method ``explain()`` or ``placements()``.

    Raises
    ------
    InvalidTypeError
        ``work`` has neither method.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> job = ar.map_reduce_job(len, ["a", "bb"])
    >>> job.result()
    [1, 2]
    >>> "predicted s" in ar.explain(job)
    True
    """
    if callable(getattr(work, "explain", None)):
        return str(work.explain())
    if callable(getattr(work, "placements", None)):
        return placement_table(work.placements())
    raise InvalidTypeError(f"cannot explain a {type(work).__name__}")


def placement_table(records: Sequence[PlacementRecord], limit: int = 50) -> str:
    """Format placements as a table, at most ``limit`` rows, one bundle a row."""
    if not records:
        return "nothing has run yet"
    rows = [_HEADER, *(_row(record) for record in records[:limit])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if len(records) > limit:
        lines.append(f"and {len(records) - limit} more")
    return "\n".join(lines)


def _row(record: PlacementRecord) -> tuple[str, ...]:
    predicted = "?" if record.predicted_seconds is None else f"{record.predicted_seconds:.4g}"
    bundle = record.bundle if len(record.bundle) <= 40 else record.bundle[:39] + "…"
    return (
        bundle,
        record.node_id[:8],
        record.device if len(record.device) <= 12 else record.device[:11] + "…",
        predicted,
        f"{record.actual_seconds:.4g}",
        record.reason + (" (run again after a loss)" if record.retried else ""),
    )
