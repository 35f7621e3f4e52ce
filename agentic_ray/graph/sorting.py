"""Sorts the tasks of a graph so that each follows those it depends on. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentic_ray.errors import CycleError

if TYPE_CHECKING:
    from agentic_ray.graph.task import Task


def topological(by_key: dict[str, Task]) -> tuple[Task, ...]:
    """Sort depth-first, so that a chain's tasks stay next to each other (iterative).

    The order starts from the tasks that nothing depends on; a circle is found from the others.
    """
    order: list[Task] = []
    done: set[str] = set()
    used = {key for task in by_key.values() for key in task.dependencies}
    for root in [*(key for key in by_key if key not in used), *by_key]:
        if root in done:
            continue
        path: list[str] = [root]
        on_path: dict[str, None] = {root: None}
        pending = [iter(by_key[root].dependencies)]
        while pending:
            for key in pending[-1]:
                if key in done:
                    continue
                if key in on_path:
                    keys = list(on_path)
                    circle = [*keys[keys.index(key) :], key]
                    raise CycleError(
                        "tasks depend on each other in a circle: " + " -> ".join(circle),
                        circle[:-1],
                    )
                path.append(key)
                on_path[key] = None
                pending.append(iter(by_key[key].dependencies))
                break
            else:
                pending.pop()
                key = path.pop()
                del on_path[key]
                done.add(key)
                order.append(by_key[key])
    return tuple(order)
