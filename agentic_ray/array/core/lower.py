"""From expressions to chunk tasks: what is fused in one program, and what each block needs.

Decides nothing about where tasks run; it only lists them in a valid order.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agentic_ray.array.core.assignment import folded
from agentic_ray.array.core.chunks import Chunks, block_slices, blocks_under, numblocks, offsets
from agentic_ray.array.core.fusing import Seen, walk
from agentic_ray.array.core.node import Node, exact, topological
from agentic_ray.array.core.program import (
    Call,
    Program,
    Reducing,
    Step,
    codelet,
    finish,
    lifted,
)
from agentic_ray.array.core.views import flat_readings, reads_flat, window_of
from agentic_ray.array.core.windows import Window, reading
from agentic_ray.errors import PlanTooLargeError
from agentic_ray.graph import Codelet, CostHint, Ref, Resources, Tag, Task, tree_reduce

RECOMPUTE_WEIGHT = 16.0
"""An elementwise chain up to this cost is computed again by each of its users rather than
written to memory once: writing a new element costs about as much as 16 additions."""
PROGRAM_WEIGHT = 256.0
"""Longer chains are cut, so that programs stay small."""
MOVE_WEIGHT = 1.0
"""Weight of finding an element through a window, added to that of reading it."""
MOST_PIECES = 4
"""A move whose blocks consist of more pieces, in the mean, is made by tasks of its own."""
MOST_TAKEN = 4
"""So is a move whose tasks together would be given its operand more often than this."""
SMALL_READING_BYTES = 1 << 20
"""Blocks of no more bytes may be given to any number of tasks that read a part of them."""

ADDITION_FLOPS = 16.0
"""An elementwise addition in cache takes as long as so many operations of a matrix product, in
which flops are calibrated."""
UNKNOWN_FLOPS = 2.5e9
"""A block of a user's function counts as some 50 ms: it is sent by itself until it is known."""

_TINY = CostHint(items=0)

MOST_TASKS = 2_000_000
"""Plans of more tasks are refused: these take a gigabyte and half a minute in the caller."""
MOST_EDGES = 40_000_000
"""So are plans whose tasks are given more values than this, all of them together."""


@dataclass(frozen=True, slots=True)
class MadeInside:
    """A way for a task to make the blocks of one of its operands: by ``program``, which takes an
    argument from each of ``columns`` for a block. ``read_bytes`` and ``flops`` are of all
    blocks."""

    program: Program
    columns: list[list[Any]]
    read_bytes: int
    flops: float

    @property
    def title(self) -> str:
        """A name that the cost model can learn under; empty where blocks are only taken."""
        return _title(self.program, "") if self.program.steps else ""


class Lowering:
    """The tasks of some expressions under construction.

    Parameters
    ----------
    place : callable
        Turns a block of an array in the caller's memory into a task's argument.

    Attributes
    ----------
    folded : set of Node
        Assignments that are made together with the next one to the same array.
    """

    def __init__(self, place: Callable[[Node, Sequence[Any]], list[Any]]) -> None:
        self.tasks: list[Task] = []
        self._edges = 0
        self._place = place
        self._blocks: dict[Node, list[Any]] = {}
        self._inlined: set[Node] = set()
        self._windows: dict[Node, Window] = {}
        self._flat: set[Node] = set()
        self._looked_at: dict[Node, Window | None] = {}
        self.folded: set[Node] = set()
        self._sharing: Counter[tuple[Any, ...]] = Counter()
        self._combined: dict[tuple[Any, ...], list[str]] = {}

    def run(self, roots: Sequence[Node]) -> list[list[Any]]:
        """Lower ``roots``; for each its blocks in C order, as task arguments.

        Raises
        ------
        PlanTooLargeError
            There would be more than `MOST_TASKS` tasks, or more than `MOST_EDGES` values given
            to them.
        """
        order = list(topological(roots))
        for node in order:
            if node.blocks > MOST_TASKS:
                raise _too_large(node, f"{node.blocks:,} chunks")
        self._choose_inlined(order, set(roots))
        self.folded = folded(order, set(roots))
        self._sharing.update(
            _partials(node) for node in order if node.op.kind == "reduce" and node.value is None
        )
        for node in order:
            if (
                node.op.kind not in ("literal", "create", "data")
                and node not in self._inlined
                and node not in self._flat
                and node not in self.folded
            ):
                self.blocks(node)
        return [self.blocks(root) for root in roots]

    def blocks(self, node: Node) -> list[Any]:
        """The blocks of ``node`` in C order: a Ref, a stored value or an array each."""
        found = self._blocks.get(node)
        if found is None:
            found = self._blocks[node] = self._lower(node)
            self._check_size(node)
        return found

    def readings(self, node: Node) -> list[Any]:
        """As `blocks`, for operations that are `Op.reads_views`: a block of a move is a list of a
        `windows.Cut` and the blocks that it cuts, which `Call` opens."""
        if node in self._flat:
            return flat_readings(node, self.blocks(node.inputs[0]))
        if node not in self._inlined or node not in self._windows:
            return self.blocks(node)
        window, source = self._seen_through(node)
        return self._read(source, window, node.chunks)

    def _seen_through(self, node: Node) -> tuple[Window, Node]:
        """Return the array below a chain of moves that has tasks of its own, and the window through
        which the outermost move shows it."""
        window, (source,) = self._windows[node], node.inputs
        while source in self._inlined and source in self._windows:
            window, (source,) = window.on(self._windows[source]), source.inputs
        return window, source

    def _read(self, source: Node, window: Window, cut: Chunks) -> list[Any]:
        return reading(window, source.chunks, cut).arguments(self.blocks(source))

    def _check_size(self, node: Node) -> None:
        if len(self.tasks) > MOST_TASKS:
            raise _too_large(node, f"more than {MOST_TASKS:,} tasks")
        if self._edges > MOST_EDGES:
            raise _too_large(node, f"tasks that are given more than {MOST_EDGES:,} values")

    def emit(
        self,
        key: str,
        code: Codelet,
        args: tuple[Any, ...],
        cost: CostHint = _TINY,
        resources: Resources | None = None,
        device: str = "cpu",
        known: dict[int, tuple[str, ...]] | None = None,
    ) -> Ref:
        """Add one task; Refs directly among ``args``, in a list there, or in a reading in such a
        list, are its dependencies. ``known``: keys in lists seen so far, by `id`; many tasks of an
        exchange are given the same list."""
        dependencies = _dependencies(args, {} if known is None else known)
        self._edges += len(dependencies)
        self.tasks.append(
            Task(
                key,
                code,
                args,
                {},
                dependencies,
                "gpu" if device == "gpu" else "any",
                resources or Resources(),
                cost,
            )
        )
        return Ref(key)

    def call(
        self,
        node: Node,
        kernel: Callable[..., Any],
        rows: Iterable[tuple[Any, ...]],
        *,
        params: tuple[Any, ...] = (),
        label: str = "",
        read_bytes: int | None = None,
        written_bytes: int | None = None,
        flops: float = 0.0,
    ) -> list[Any]:
        """Make a task ``kernel(xp, *row, *params)`` for each row of arguments.

        ``read_bytes`` and ``written_bytes`` are of all tasks together; by default what the
        node reads and what it is. ``label`` tells the tasks from others of the node; a number at
        its end, of a step or a stage, is left out of the codelet's name, under which costs are
        learnt.
        """
        call, given = Call.of(kernel, params)
        table = [(*row, *given) for row in rows]
        if read_bytes is None:
            read_bytes = sum(source.nbytes for source in node.inputs)
        if written_bytes is None:
            written_bytes = node.nbytes
        code = codelet(node.op.name + label.rstrip("0123456789."), call)
        return self._tasks(node, code, table, label, read_bytes, written_bytes, flops)

    def work(self, node: Node) -> float:
        """Flops of an operation that costs its weight for each element."""
        if node.op.of_user:
            return UNKNOWN_FLOPS * node.blocks
        size = max([node.size, *[source.size for source in node.inputs]])
        return ADDITION_FLOPS * node.op.weight * size

    def _tasks(
        self,
        node: Node,
        code: Codelet,
        table: Sequence[tuple[Any, ...]],
        label: str,
        read_bytes: int,
        written_bytes: int,
        flops: float = 0.0,
    ) -> list[Any]:
        each = max(len(table), 1)
        cost = CostHint(flops / each, read_bytes // each + 1, written_bytes // each + 1)
        resources = Resources(memory_bytes=(read_bytes + 2 * written_bytes) // each)
        prefix = f"{node.name}{label}/"
        made: list[Any] = []
        known: dict[int, tuple[str, ...]] = {}  # the table keeps the lists, and so their ids
        for i, row in enumerate(table):
            made.append(self.emit(f"{prefix}{i}", code, row, cost, resources, node.device, known))
            if not i % 4096:  # a single operation may be the one that has too many
                self._check_size(node)
        return made

    def tree(
        self, node: Node, refs: Sequence[Ref], combine: Codelet, label: str, cost: CostHint = _TINY
    ) -> Ref:
        """The value of ``refs`` combined in order in a tree of tasks. ``label`` tells it from the
        other tasks of ``node``."""
        keys, prefix = [ref.key for ref in refs], f"{node.name}{label}"
        tag: Tag = "gpu" if node.device == "gpu" else "any"
        tasks, root = tree_reduce(keys, combine, tag=tag, cost=cost, prefix=prefix)
        self.tasks += tasks
        return Ref(root)

    # --- one node ----------------------------------------------------------------------

    def _lower(self, node: Node) -> list[Any]:
        kind = node.op.kind
        if node.value is not None:
            return self._cut(node, node.value)
        if kind == "data":
            return self._cut(node, node.params[0].value)
        if node in self._windows and node.inputs[0] in self._inlined:
            return self._lower_map(node)
        if kind == "stored":
            return list(node.params[0].value)
        if kind == "tasks":
            assert node.op.lower is not None
            return node.op.lower(node, self)
        if kind == "pick":
            values = self.blocks(node.inputs[0])
            return self.call(node, node.op.kernel, [(v,) for v in values], params=node.params)
        if kind == "reduce":
            return self._lower_reduce(node)
        return self._lower_map(node)

    def _cut(self, node: Node, array: Any) -> list[Any]:
        if node.blocks == 1:
            return self._place(node, [array])
        return self._place(node, [array[region] for region in block_slices(node.chunks)])

    def _lower_map(self, node: Node) -> list[Any]:
        """Elementwise chains and blocks made from their position."""
        program, columns, read, flops = self._fuse([node], node, None)
        code = codelet(_title(program, node.op.name), program)
        rows = list(zip(*columns, strict=True)) if columns else [()] * node.blocks
        return self._tasks(node, code, rows, "", read, node.nbytes, flops)

    def _lower_reduce(self, node: Node) -> list[Any]:
        axes, keepdims, *params = node.params
        reduction = node.op.reduction
        assert reduction is not None
        operand = node.inputs[0]
        grid = numblocks(operand.chunks)
        per_result = 1
        count = 1
        for axis in axes:
            per_result *= grid[axis]
            count *= operand.shape[axis]
        if per_result == 1 and self._sharing[_partials(node)] <= 1:
            code, table, read, flops = self._reducing(node, count)
            return self._tasks(node, code, table, "", read, node.nbytes, flops)
        call, given = Call.of(finish, (reduction, axes, keepdims, count, *params))
        last = codelet(f"{node.op.name}.final", call)
        return [
            self.emit(f"{node.name}/{i}", last, (Ref(key), *given), device=node.device)
            for i, key in enumerate(self._combine(node, per_result))
        ]

    def _reducing(
        self, node: Node, count: int | None
    ) -> tuple[Codelet, list[tuple[Any, ...]], int, float]:
        """Return the codelet that makes the partial values of a reduction, or with ``count`` its
        results; the arguments for each block; bytes read; flops."""
        axes, keepdims, *params = node.params
        assert node.op.reduction is not None
        reducing = Reducing(node.op.reduction, (), axes, keepdims, tuple(params), count)
        program, columns, read, flops = self._fuse(node.inputs, node.inputs[0], reducing)
        flops += ADDITION_FLOPS * node.op.weight * node.inputs[0].size
        code = codelet(_title(program, node.op.name), program)
        return code, list(zip(*columns, strict=True)), read, flops

    def _combine(self, node: Node, per_result: int) -> list[str]:
        """Keys of the combined partial values for each result, made once for all that share."""
        sharing = _partials(node)
        found = self._combined.get(sharing)
        if found is not None:
            return found
        code, table, read, flops = self._reducing(node, None)
        partials = self._tasks(node, code, table, ".partial", read, node.nbytes * per_result, flops)
        grid = numblocks(node.inputs[0].chunks)
        axes = node.params[0]
        order = np.arange(len(partials)).reshape(grid)
        kept = [axis for axis in range(len(grid)) if axis not in axes]
        groups = order.transpose([*kept, *axes]).reshape(-1, per_result).tolist()
        assert node.op.reduction is not None
        combine = codelet(f"{node.op.name}.combine", node.op.reduction.combine)
        roots = [
            self.tree(node, [partials[at] for at in group], combine, f".tree{number}").key
            for number, group in enumerate(groups)
        ]
        self._combined[sharing] = roots
        return roots

    # --- fusion ------------------------------------------------------------------------

    def made_inside(self, node: Node) -> MadeInside:
        """Tell how tasks that use ``node`` make its blocks themselves, or take them where other
        tasks make them."""
        if node.value is None and (node in self._inlined or node.op.kind == "create"):
            return MadeInside(*self._fuse([node], node, None))
        taken = Program((False,), 0, (), node.dtype)
        return MadeInside(taken, [self.blocks(node)], node.nbytes, 0.0)

    def _choose_inlined(self, order: Sequence[Node], roots: set[Node]) -> None:
        """Choose the elementwise operations that become part of their users' programs, and the
        moves that are only ways to read."""
        users: dict[Node, list[Node]] = {node: [] for node in order}
        for node in order:
            if node.value is None:
                for source in dict.fromkeys(node.inputs):
                    users[source].append(node)
        weight: dict[Node, float] = {}
        for node in order:
            weight[node] = 0.0
            if node.value is not None:
                continue
            if node.op.kind == "map":
                own = node.op.weight
            elif (window := self._cheap_window(node)) is not None:
                self._windows[node] = window
                own = MOVE_WEIGHT
            else:
                if (
                    node not in roots
                    and reads_flat(node, MOST_PIECES)
                    and all(self._takes_flat(user, node) for user in users[node])
                ):
                    self._flat.add(node)
                continue
            own += sum(weight[source] for source in node.inputs if source in self._inlined)
            weight[node] = own
            if (
                node not in roots
                and own <= PROGRAM_WEIGHT
                and (len(users[node]) == 1 or own <= RECOMPUTE_WEIGHT)
                and all(self._absorbs(user, node) for user in users[node])
            ):
                self._inlined.add(node)

    def _absorbs(self, user: Node, node: Node) -> bool:
        """Whether tasks of ``user`` can make the blocks of ``node`` themselves."""
        op, is_move = user.op, node in self._windows
        if is_move and node.inputs[0] not in self._inlined and op.reads_views:
            return True
        if op.kind == "map":
            if user.shape == node.shape and (is_move or user.chunks == node.chunks):
                return True
            return is_move and self._is_read_often(node)
        if op.kind == "reduce":
            operand = user.inputs[0]
            if operand.shape == node.shape and (is_move or operand.chunks == node.chunks):
                return True
            return is_move and self._is_read_often(node)
        if op.takes_along is not None:
            return op.takes_along(user, node)
        return self._cheap_window(user) is not None

    def _takes_flat(self, user: Node, node: Node) -> bool:
        """Whether tasks of ``user`` can take the blocks of a reshape as runs of other blocks."""
        if user.op.reads_views:
            return True
        operand = user if user.op.kind == "map" else user.inputs[0]
        fits = operand.shape == node.shape and operand.chunks == node.chunks
        return user.op.kind in ("map", "reduce") and fits

    def _cheap_window(self, node: Node) -> Window | None:
        """Return the window of a move whose blocks consist of few pieces of its operand's blocks;
        None if they consist of many, or ``node`` is no move."""
        if node in self._looked_at:
            return self._looked_at[node]
        found = window_of(node)
        if found is not None:
            (source,) = node.inputs
            most = max(MOST_TAKEN * source.nbytes, SMALL_READING_BYTES)
            way = reading(found, source.chunks, node.chunks)
            if not way.is_cheap(MOST_PIECES * node.blocks, most, source.dtype.itemsize):
                found = None
        self._looked_at[node] = found
        return found

    def _is_read_often(self, node: Node) -> bool:
        """Whether each task of an operation that broadcasts a move may read through the move. The
        array below must need no computing for that, and have at most twice the move's elements, or
        small blocks: each of these tasks is given whole blocks of it."""
        (source,) = node.inputs
        while source in self._inlined and source in self._windows:
            (source,) = source.inputs
        largest = math.prod([max(lengths) for lengths in source.chunks])
        return source not in self._inlined and (
            source.size <= 2 * node.size or largest * source.dtype.itemsize <= SMALL_READING_BYTES
        )

    def _fuse(
        self, outputs: Sequence[Node], grid: Node, reducing: Reducing | None
    ) -> tuple[Program, list[list[Any]], int, float]:
        """The program that computes ``outputs`` per block of ``grid``, and its arguments.

        A node may be in it several times, seen through several windows.

        Returns
        -------
        program : Program
        columns : list of list
            Per argument of the program its value for each block.
        read_bytes : int
        flops : float
            What its steps take, as flops of a matrix product.
        """
        inlined = self._inlined

        def is_inside(node: Node) -> bool:
            return node in inlined or (reducing is None and node in outputs)

        walked = walk(outputs, grid, is_inside, self._windows)
        leaves, inside, same = walked.leaves, walked.inside, walked.same
        register = {seen: i for i, seen in enumerate(leaves)}
        wanted: list[Seen] = [(node, None) for node in outputs]
        reads = [walked.operands[seen] for seen in inside]
        # Each use of a scalar is one of its own: whether two have the same value changes nothing.
        scalars = [
            source.params[2]
            for read in (*reads, wanted)
            for source, _ in read
            if source.op.kind == "literal"
        ]
        next_scalar = itertools.count(len(leaves))

        def registers_of(read: Sequence[Seen]) -> tuple[int, ...]:
            found: list[int] = []
            for seen in read:
                while seen in same:
                    seen = same[seen]
                is_scalar = seen[0].op.kind == "literal"
                found.append(next(next_scalar) if is_scalar else register[seen])
            return tuple(found)

        steps: list[Step] = []
        given: list[Any] = []
        for seen, read in zip(inside, reads, strict=True):
            node = seen[0]
            steps.append(Step(node.op.kernel, registers_of(read), lifted(node.params, given)))
            register[seen] = len(leaves) + len(scalars) + len(steps) - 1
        located = tuple(
            node.op.kind == "create" and node.value is None and window is None
            for node, window in leaves
        )
        if reducing is not None:
            registers = registers_of(wanted)
            (count,) = lifted((reducing.count,), given)
            # Tuples stay: which axes are meant decides what can be compiled.
            params = tuple(
                [p if type(p) is tuple else lifted((p,), given)[0] for p in reducing.params]
            )
            reducing = replace(reducing, registers=registers, params=params, count=count)
        program = Program(
            located,
            len(scalars),
            tuple(steps),
            grid.dtype,
            reducing,
        )
        columns = [
            self._column(node, grid, is_location)
            if window is None
            else self._read(node, window, grid.chunks)
            for (node, window), is_location in zip(leaves, located, strict=True)
        ]
        columns += [[number] * grid.blocks for number in (*scalars, *given)]
        read_nodes = {node for (node, _), is_location in zip(leaves, located, strict=True)
                      if not is_location}  # fmt: skip
        most = grid.size * grid.dtype.itemsize
        seen_whole = {node for node, window in leaves if window is None}
        read_bytes = sum(
            node.nbytes if node in seen_whole else min(node.nbytes, most) for node in read_nodes
        )
        flops = ADDITION_FLOPS * sum(
            node.op.weight * (node.size if window is None else math.prod(window.shape))
            for node, window in inside
        )
        flops += ADDITION_FLOPS * MOVE_WEIGHT * grid.size * sum(w is not None for _, w in leaves)
        return program, columns, read_bytes, flops

    def _column(self, node: Node, grid: Node, located: bool) -> list[Any]:
        """For each block of ``grid`` the block of ``node`` that broadcasts to it."""
        values = _locations(node) if located else self.readings(node)
        counts, wanted = numblocks(node.chunks), numblocks(grid.chunks)
        if counts == wanted:
            return values
        if len(values) == 1:
            return values * grid.blocks
        return [values[i] for i in blocks_under(counts, wanted)]


def _dependencies(args: Sequence[Any], known: dict[int, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the keys of the Refs in a task's arguments, each once."""
    parts: list[tuple[str, ...]] = []
    for arg in args:
        if type(arg) is Ref:
            parts.append((arg.key,))
        elif type(arg) is list:
            keys = known.get(id(arg))
            if keys is None:
                keys = known[id(arg)] = _keys_in(arg)
            parts.append(keys)
    if len(parts) == 1:
        return parts[0]
    return tuple(dict.fromkeys(itertools.chain.from_iterable(parts)))


def _keys_in(given: list[Any]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for element in given:
        if type(element) is Ref:
            found[element.key] = None
        elif type(element) is list:  # a reading
            found.update((e.key, None) for e in element if type(e) is Ref)
    return tuple(found)


def _partials(node: Node) -> tuple[Any, ...]:
    """Return the values that the partial values of a reduction depend on."""
    reduction = node.op.reduction
    assert reduction is not None
    axes, _, *params = node.params
    told = exact(tuple(params))
    return reduction.partial, reduction.combine, node.inputs, axes, told, node.device


def _locations(node: Node) -> list[Any]:
    starts: list[tuple[int, ...]] = [()]
    shapes: list[tuple[int, ...]] = [()]
    for lengths in node.chunks:
        begin = offsets(lengths)[:-1]
        starts = [(*head, at) for head in starts for at in begin]
        shapes = [(*head, n) for head in shapes for n in lengths]
    return list(zip(starts, shapes, strict=True))


def _too_large(node: Node, what: str) -> PlanTooLargeError:
    sizes = ", ".join(f"{max(lengths):,}" for lengths in node.chunks)
    return PlanTooLargeError(
        f"{node.op.name} of shape {node.shape}, {node.nbytes:,} bytes in {node.blocks:,} chunks of "
        f"up to ({sizes}) elements, makes a plan of {what}. Cut its operands in fewer, larger "
        "chunks: x.rechunk(...), or chunks=... where they are made"
    )


def _title(program: Program, last: str) -> str:
    """A name that the cost model can learn under: the operations in order."""
    names = [getattr(step.kernel, "__name__", last).strip("_") for step in program.steps]
    if program.reducing is not None or not names:
        names.append(last)
    return "+".join(names)[:80]
