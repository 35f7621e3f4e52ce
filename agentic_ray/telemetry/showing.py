"""Shows a cluster in a notebook: a row a node, and below it a row for each of its GPUs."""

from __future__ import annotations

from html import escape

from agentic_ray.pictures.meters import meter
from agentic_ray.telemetry.state import ClusterState, GpuState, NodeState, format_bytes

_HEADER = ("node", "processors", "memory", "object store", "state")
_RED, _GREEN = "#ee6677", "#228833"


def state_html(state: ClusterState) -> str:
    """Return a table of nodes and GPUs, with bars for what is taken."""
    head = "".join(f"<th style='text-align:left'>{cell}</th>" for cell in _HEADER)
    body = "".join(row for node in state.nodes for row in _rows(node))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _rows(node: NodeState) -> list[str]:
    taken = node.cpus_total - node.cpus_free
    busy = "" if node.cpu_fraction is None else f", {node.cpu_fraction:.0%} busy"
    cells = [
        f"<b>{escape(node.host)}</b> <code>{escape(node.node_id[:12])}</code>",
        meter(_share(taken, node.cpus_total), f"{taken:g} of {node.cpus_total:g} taken{busy}"),
        _memory(node),
        meter(
            _share(node.store_used_bytes, node.store_total_bytes),
            f"{format_bytes(node.store_used_bytes)} of {format_bytes(node.store_total_bytes)}",
        ),
        _alive(node),
    ]
    rows = [_row(cells)]
    rows += [_gpu(gpu) for gpu in node.gpus]
    if node.alive and not node.gpus and node.gpus_reason:
        note = f"<small>no GPU: {escape(node.gpus_reason)}</small>"
        rows.append(f"<tr><td colspan='{len(_HEADER)}' style='text-align:left'>{note}</td></tr>")
    return rows


def _memory(node: NodeState) -> str:
    """Show the host's memory, whoever uses it; where that is not known, the part Ray promises."""
    total, free = node.host_memory_total_bytes, node.host_memory_free_bytes
    if total is None or free is None:
        total, free = node.memory_total_bytes, node.memory_free_bytes
    used = None if total is None or free is None else total - free
    return meter(_share(used, total), f"{format_bytes(used)} of {format_bytes(total)}")


def _alive(node: NodeState) -> str:
    if not node.alive:
        return f"<b style='color:{_RED}'>dead</b>"
    age = node.heartbeat_age_seconds
    return "alive" if age is None else f"alive, seen {age:.0f} s ago"


def _gpu(gpu: GpuState) -> str:
    place = f"{gpu.index}" if gpu.mig_parent is None else f"{gpu.index}.{gpu.mig_index}"
    used, total = gpu.memory_used_bytes, gpu.memory_total_bytes
    if used is None and total is not None and gpu.memory_free_bytes is not None:
        used = total - gpu.memory_free_bytes
    facts = [
        "" if gpu.temperature_celsius is None else f"{gpu.temperature_celsius:.0f} °C",
        "" if gpu.power_watts is None else f"{gpu.power_watts:.0f} W",
        ", ".join(gpu.throttle_reasons or ()),
    ]
    health = "healthy" if gpu.healthy else f"<b style='color:{_RED}'>{escape(gpu.reason or '')}</b>"
    busy = "" if gpu.utilization is None else f"{gpu.utilization:.0%} busy"
    return _row(
        [
            f"&emsp;GPU {escape(place)}: {escape(gpu.name)}",
            meter(gpu.utilization, busy or "?", _GREEN),
            meter(_share(used, total), f"{format_bytes(used)} of {format_bytes(total)}", _GREEN),
            escape(", ".join(fact for fact in facts if fact)),
            health,
        ]
    )


def _row(cells: list[str]) -> str:
    return "<tr>" + "".join(f"<td style='text-align:left'>{c}</td>" for c in cells) + "</tr>"


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole
