"""Passes over pairs of chunks: for what depends on the distances between all rows.

The task of a pair reads both chunks where it runs. What the pairs of one chunk give is combined in
a tree, so that no more than one result for each chunk comes to the calling process.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from agentic_ray.blas import one_thread
from agentic_ray.graph import Codelet, CostHint, Resources, Task, find_refs, fold, tree_reduce
from agentic_ray.ml.chunks import loaded
from agentic_ray.ml.passes import Check, Passes, combining, single, submitted

_names = itertools.count()
_FLOPS = 1e3
"""A pair of rows counts as so many operations until pairs were timed."""


class PairCall:
    """A kernel over two chunks of X: reads and checks them, then calls it."""

    __slots__ = ("kernel",)

    def __init__(self, kernel: Callable[..., Any]) -> None:
        self.kernel = kernel

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kernel,)

    def __call__(self, given: list[Any], steps: Any, check: Check, own: Any, params: Any) -> Any:
        with one_thread, single():
            left, right = [check.of_x(loaded(chunk, steps)) for chunk in given]
            return self.kernel(left, right, *own, *params)


def over_pairs(
    run: Passes,
    kernel: Callable[..., Any],
    wanted: Sequence[Sequence[int]],
    own: Sequence[Any],
    *params: Any,
    combine: Callable[[Any, Any], Any],
) -> list[Any]:
    """``kernel(x_i, x_j, own[i], own[j], *params)`` of pairs of chunks, combined over j.

    Parameters
    ----------
    run : Passes
        Over X.
    kernel : callable
        A function of a module.
    wanted : sequence of sequences of int
        For each chunk i the chunks j, in order; at least one.
    own : sequence
        Something for each chunk, put in the object store once.
    combine : callable
        Associative.

    Returns
    -------
    list
        A value for each chunk i.
    """
    code = Codelet(f"ml.{kernel.__name__}", PairCall(kernel))
    if run.is_here:
        chunks = run.x.source.arguments(True)[1]
        function: Any = code.cpu
        return [
            fold(
                combine,
                (
                    function(
                        [chunks[i], chunks[j]], run.x.steps, run.check, (own[i], own[j]), params
                    )
                    for j in row
                ),
            )
            for i, row in enumerate(wanted)
        ]
    return submitted(lambda: _graph(run, code, wanted, own, params, combine))


def _graph(
    run: Passes,
    code: Codelet,
    wanted: Sequence[Sequence[int]],
    own: Sequence[Any],
    params: tuple[Any, ...],
    combine: Callable[[Any, Any], Any],
) -> tuple[list[Task], list[str]]:
    from agentic_ray.runtime import put

    tasks, chunks = run.x.source.arguments(False)
    steps, held, sent = put(run.x.steps), [put(part) for part in own], [put(p) for p in params]
    each = run.x.source.nbytes // max(len(chunks), 1) + 1
    length = run.n / max(len(chunks), 1)
    cost = CostHint(_FLOPS * length * max(length, 1.0) ** 0.5, read_bytes=2 * each)
    resources = Resources(memory_bytes=6 * each)
    number = next(_names)
    roots = []
    for i, row in enumerate(wanted):
        keys = []
        for j in row:
            given = [chunks[i], chunks[j]]
            key = f"{code.name}@pair{number}/{i}/{j}"
            args = (given, steps, run.check, (held[i], held[j]), tuple(sent))
            found = tuple(dict.fromkeys(find_refs(given)))
            tasks.append(Task(key, code, args, {}, found, "any", resources, cost))
            keys.append(key)
        if len(keys) == 1:
            roots.append(keys[0])
            continue
        cheap = CostHint(flops=1e4, items=0)
        more, root = tree_reduce(keys, combining(combine), prefix=keys[0], cost=cheap)
        tasks += more
        roots.append(root)
    return list({task.key: task for task in tasks}.values()), roots
