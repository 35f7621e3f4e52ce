"""Shows arrays and their plans: HTML for notebooks, text for `explain`, pictures.

Computes nothing.
"""

from __future__ import annotations

import html as markup
import math
import os
from collections import Counter
from typing import Any

from agentic_ray.array.core import evaluate, memory
from agentic_ray.array.core.node import Node, topological
from agentic_ray.array.core.rewrite import Applied
from agentic_ray.array.core.rules import optimize
from agentic_ray.array.steps import task_lines
from agentic_ray.graph import Ref, TaskGraph
from agentic_ray.graph.drawing import drawing_of
from agentic_ray.pictures import Box, Drawing, draw
from agentic_ray.pictures.chunks import chunks_svg
from agentic_ray.pictures.wording import counted
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
    node: Node = array._node
    chunk = tuple(max(lengths, default=0) for lengths in array.chunks)
    rows = {
        "shape": str(array.shape),
        "chunks": " × ".join(map(str, array.numblocks)) or "1",
        "chunk": f"{chunk}, {human_bytes(array.dtype.itemsize * math.prod(chunk))}",
        "dtype": str(array.dtype),
        "size": human_bytes(array.nbytes),
        "device": array.device,
        "state": _state(node),
    }
    table = "".join(
        f"<tr><th>{name}</th><td>{markup.escape(value)}</td></tr>" for name, value in rows.items()
    )
    drawing = chunks_svg(array.chunks, colour="#228833" if array.device == "gpu" else "#4477aa")
    return f"<div style='display:flex;gap:2em'><table>{table}</table>{drawing}</div>"


def _state(node: Node) -> str:
    if node.value is not None:
        return "computed"
    known = {"data": "here", "stored": "persisted"}
    return known.get(node.op.kind, "not computed")


def visualize(array: Any, path: str | os.PathLike[str] | None, most: int) -> Drawing:
    """Draw the tasks that computing ``array`` would run; of an array that is there, its chunks."""
    root: Node = array._node
    if root.value is None and root.op.kind not in ("data", "stored"):
        tasks, _ = evaluate.plan([root])
        title = f"{counted(len(tasks), 'task')} for {array.dtype} {array.shape}"
        return drawing_of(tasks, title=title, most=most, path=path)
    box = Box(root.op.name, 0, root.blocks, (human_bytes(root.nbytes),))
    drawing = draw(f"{array.dtype} {array.shape}: nothing to compute", [box], [])
    if path is not None:
        drawing.save(path)
    return drawing
