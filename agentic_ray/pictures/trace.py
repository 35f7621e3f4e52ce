"""A timeline in the format that Perfetto and chrome://tracing read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agentic_ray.pictures.spans import Span, lanes


def chrome_trace(spans: Sequence[Span], memory: Sequence[tuple[float, int]], begin: float) -> str:
    """Return JSON of the Trace Event Format: a process for each node, a thread for each lane.

    Times are microseconds since ``begin``. The bytes held are a counter beside them.
    """
    events: list[dict[str, Any]] = []
    processes: dict[str, int] = {}
    for number, lane in enumerate(lanes(spans), 1):
        if lane.node_id not in processes:
            process = processes[lane.node_id] = len(processes) + 1
            events.append(_name("process_name", process, 0, lane.node_id))
        process = processes[lane.node_id]
        events.append(_name("thread_name", process, number, lane.device))
        events += [_complete(span, process, number, begin) for span in lane.spans]
    events += [
        {
            "ph": "C",
            "name": "values held",
            "pid": 0,
            "ts": _microseconds(seconds - begin),
            "args": {"bytes": size},
        }
        for seconds, size in memory
    ]
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})


def _name(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}


def _complete(span: Span, process: int, thread: int, begin: float) -> dict[str, Any]:
    details = {
        "task": span.task,
        "device": span.device,
        "sent_seconds": round(span.sent_seconds - begin, 9),
        "predicted_seconds": span.predicted_seconds,
        "made_bytes": span.made_bytes,
        "moved_bytes": span.moved_bytes,
        "note": span.note,
        "retried": span.retried,
    }
    return {
        "ph": "X",
        "name": span.codelet,
        "cat": "cpu" if span.device == "cpu" else "gpu",
        "pid": process,
        "tid": thread,
        "ts": _microseconds(span.start_seconds - begin),
        "dur": _microseconds(span.seconds),
        "args": {name: value for name, value in details.items() if value not in (None, "", False)},
    }


def _microseconds(seconds: float) -> float:
    return round(1e6 * seconds, 3)
