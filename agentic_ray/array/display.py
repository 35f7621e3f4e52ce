"""Shows arrays and their plans: HTML for notebooks, text for `explain`.

Computes nothing.
"""

from __future__ import annotations

import html as markup
from collections import Counter
from typing import Any

from agentic_ray.array.core import evaluate, memory
from agentic_ray.array.core.node import Node, topological
from agentic_ray.array.core.rewrite import Applied
from agentic_ray.array.core.rules import optimize
from agentic_ray.array.steps import task_lines
from agentic_ray.graph import Ref, TaskGraph
from agentic_ray.schedule.cost_model import CostModel


def human_bytes(size: float) -> str:
    """``size`` with a unit that suits it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


def _listed(node: Node) -> str:
    inputs = ", ".join(
        source.params[1] if source.op.kind == "literal" else f"#{source.key}"
        for source in node.inputs
    )
    blocks = "×".join(str(len(lengths)) for lengths in node.chunks) or "1"
    return (
        f"  #{node.key} = {node.op.name}({inputs})  {node.dtype}{list(node.shape)} "
        f"in {blocks} chunks, {human_bytes(node.nbytes)}, {node.device}"
    )


def explain(array: Any, *, steps: bool = False) -> str:
    """The plan of ``array`` before and after optimisation, and its tasks with predicted costs; with
    ``steps`` also what each kind of task does."""
    root: Node = array._node
    if root.value is not None or root.op.kind in ("data", "stored"):
        return f"nothing to compute: {_listed(root).strip()}"
    lines = ["expression:"]
    lines += [_listed(n) for n in topological([root]) if n.op.kind != "literal"]
    trace: list[Applied] = []
    (better,) = optimize([root], trace)
    lines.append(f"rewritten in {len(trace)} steps:")
    lines += [f"  {step}" for step in trace]
    if trace:
        lines.append("optimised expression:")
        lines += [_listed(n) for n in topological([better]) if n.op.kind != "literal"]
    where = evaluate.prospect([better])
    tasks, blocks = evaluate.plan([root])
    outputs = dict.fromkeys(block.key for block in blocks[0] if isinstance(block, Ref))
    need = memory.predict(TaskGraph(tasks, outputs))
    counts = Counter(task.codelet.name for task in tasks)
    read = sum(task.cost.read_bytes for task in tasks)
    written = sum(task.cost.written_bytes for task in tasks)
    model = CostModel()
    known = [p.seconds for task in tasks if (p := model.predict(task, "cpu")) is not None]
    lines.append(
        f"{len(tasks)} tasks, run {where}; {human_bytes(read)} read, {human_bytes(written)} "
        f"written, up to {human_bytes(need.live_bytes)} held at a time and "
        f"{human_bytes(need.task_bytes)} in one task, about {sum(known):.2g} s of one CPU:"
    )
    if steps:
        lines += [f"  {line}" for line in task_lines(tasks)]
    else:
        lines += [f"  {count} × {name}" for name, count in counts.most_common()]
    return "\n".join(lines)


def html(array: Any) -> str:
    """A table of what is known of ``array``, and a drawing of its chunks."""
    rows = {
        "shape": str(array.shape),
        "chunks": " × ".join(map(str, array.numblocks)) or "1",
        "dtype": str(array.dtype),
        "size": human_bytes(array.nbytes),
        "device": array.device,
        "state": "computed" if array._node.value is not None else "not computed",
    }
    table = "".join(
        f"<tr><th>{name}</th><td>{markup.escape(value)}</td></tr>" for name, value in rows.items()
    )
    return f"<div style='display:flex;gap:2em'><table>{table}</table>{_drawing(array)}</div>"


def _drawing(array: Any, width: float = 160.0, lines: int = 40) -> str:
    """The last two axes as a rectangle with the borders of its chunks."""
    if not array.ndim or not array.size:
        return ""
    rows, columns = [(1,), array.chunks[0]] if array.ndim == 1 else list(array.chunks[-2:])
    longest = max(sum(rows), sum(columns))
    w, h = (max(12.0, width * sum(axis) / longest) for axis in (columns, rows))
    parts = [f"<rect width='{w:.1f}' height='{h:.1f}' fill='#ece7f2' stroke='#333'/>"]
    for axis, vertical in ((columns, True), (rows, False)):
        step = max(1, len(axis) // lines)
        total = sum(axis)
        at = 0
        for i, length in enumerate(axis[:-1]):
            at += length
            if (i + 1) % step == 0:
                x = at / total * (w if vertical else h)
                ends = (
                    f"x1='{x:.1f}' x2='{x:.1f}' y2='{h:.1f}'"
                    if vertical
                    else f"y1='{x:.1f}' y2='{x:.1f}' x2='{w:.1f}'"
                )
                parts.append(f"<line {ends} stroke='#777' stroke-width='0.5'/>")
    return f"<svg width='{w + 2:.0f}' height='{h + 2:.0f}'>{''.join(parts)}</svg>"
