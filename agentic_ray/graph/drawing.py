"""Draws a task graph: a box a task where they are few, else a box for all alike ones. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph.shape import shape_of
from agentic_ray.graph.task import Task
from agentic_ray.pictures import Arrow, Box, Drawing, draw
from agentic_ray.pictures.wording import bytes_text, counted, short_name

MOST_BOXES = 24
"""A graph of more tasks is drawn with a box for all tasks of one operation at one depth."""


def drawing_of(
    tasks: Iterable[Task],
    *,
    title: str = "",
    most: int = MOST_BOXES,
    path: str | os.PathLike[str] | None = None,
) -> Drawing:
    """Draw a graph; write it to ``path``, which ends with ``.svg`` or ``.html``, if it is given.

    Parameters
    ----------
    tasks : iterable of Task
        In topological order, as `TaskGraph` has them.
    title : str
        Heading; default: how many tasks there are.
    most : int
        Number of tasks up to which each has a box of its own.

    Raises
    ------
    InvalidArgumentError
        ``most`` is negative, the path has another ending, or the graph is too large even with
        alike tasks put together.
    """
    listed = list(tasks)
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise InvalidArgumentError(f"most is a number of boxes, not {most!r}")
    boxes, arrows = _each(listed) if len(listed) <= most else _alike(listed)
    drawing = draw(title or counted(len(listed), "task"), boxes, arrows)
    if path is not None:
        drawing.save(path)
    return drawing


def _each(tasks: list[Task]) -> tuple[list[Box], list[Arrow]]:
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    numbers: dict[str, int] = {}
    for task in tasks:
        sources = [numbers[key] for key in dict.fromkeys(task.dependencies)]
        layer = 1 + max((boxes[source].layer for source in sources), default=-1)
        arrows += [Arrow(source, len(boxes)) for source in sources]
        numbers[task.key] = len(boxes)
        name = short_name(task.codelet.name)
        boxes.append(Box(name, layer, 1, _facts(task), f"{task.key}\n{task.codelet.name}"))
    return boxes, arrows


def _facts(task: Task) -> tuple[str, ...]:
    """Return the lines of a task's box: bytes of its result, and the device that it must have."""
    facts = [bytes_text(task.cost.written_bytes)] if task.cost.written_bytes else []
    if task.tag != "any":
        facts.append(task.tag)
    return (", ".join(facts),) if facts else ()


def _alike(tasks: list[Task]) -> tuple[list[Box], list[Arrow]]:
    shape = shape_of(tasks)
    if shape.left_out:
        raise InvalidArgumentError(f"the graph is too large to be drawn: {shape.left_out}")
    boxes = [
        Box(
            short_name(stage.name),
            stage.depth,
            stage.tasks,
            (bytes_text(stage.written_bytes),) if stage.written_bytes else (),
            f"{stage.tasks:,} tasks of {stage.name}",
        )
        for stage in shape.stages
    ]
    return boxes, [Arrow(link.source, link.target, link.count) for link in shape.links]
