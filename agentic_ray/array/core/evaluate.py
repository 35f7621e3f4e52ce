"""Values of expressions: small ones directly in the caller, others as task graphs.

Chooses between the caller's process and the session; the tasks, and so the bits of the result,
are the same either way.
"""

from __future__ import annotations

import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import psutil

from agentic_ray.array.core import memory, placing, prepared, threads
from agentic_ray.array.core import node as nodes
from agentic_ray.array.core.assignment import (
    ASSIGN,
    assigned_together,
    folded,
    operands_of,
    pending,
)
from agentic_ray.array.core.chunks import block_slices
from agentic_ray.array.core.collection import collection_put_off
from agentic_ray.array.core.lineage import STORED, Kept, is_here, kept, origin_of
from agentic_ray.array.core.lower import Lowering
from agentic_ray.array.core.node import DATA, NDArray, Node, topological
from agentic_ray.array.core.order import in_c_order
from agentic_ray.array.core.program import as_array
from agentic_ray.array.core.rules import optimize
from agentic_ray.array.core.views import MOVES, PERMUTE, permuted
from agentic_ray.blas import computing, one_thread
from agentic_ray.errors import BlockResultError, LostDataError, SerializationError
from agentic_ray.graph import Ref, Task, TaskGraph
from agentic_ray.pictures import Span
from agentic_ray.schedule.metrics import CALLER
from agentic_ray.watching import watches

LOCAL_BYTES = 32 << 20
"""Expressions that touch no more than this are computed in the caller's process: it takes a
few tens of milliseconds, about what distributing them would cost."""
SURELY_FITS_BYTES = 64 << 20
"""Plans that write no more than this are not checked for memory."""
QUICK_BYTES = 1 << 20
"""What `is_quick` lets an expression touch."""
MOST_DEATHS = 8
"""Of the cluster's only node that one computation outlives."""
KEPT_BYTES = 1 << 20
"""Values up to this size are remembered by their expression."""
_WITHOUT_BLAS = frozenset({"map", "create", "reduce"})
"""Kinds of operations whose kernels call neither BLAS nor LAPACK: they do without what `blas` does
around those that may, which takes as long as a small one of them."""


def value(node: Node) -> NDArray:
    """The value of one expression, not to be written to."""
    node = nodes.strong(node)
    if node.value is None:
        if node.small:
            _direct(node)
        else:
            return values([node])[0]
    found: NDArray = node.value
    return found


def _direct(root: Node) -> None:
    """Compute a small expression with the kernels on whole arrays."""
    stack = [root]
    while stack:
        node = stack[-1]
        if node.value is not None:  # it was on the stack twice
            stack.pop()
            continue
        if node.op is ASSIGN:
            chain = pending(node)
            unknown = [source for source in operands_of(chain) if source.value is None]
            if unknown:
                stack.extend(unknown)
            else:
                node.value = assigned_together(chain)
            continue
        operands: list[Any] = []
        waits = False
        for source in node.inputs:
            if source.value is not None:
                operands.append(source.value)
            elif source.op is nodes.LITERAL:
                operands.append(source.params[2])
            else:
                stack.append(source)
                waits = True
        if waits:
            continue
        stack.pop()
        if node.op.kind == "create":
            operands.append(((0,) * len(node.shape), node.shape))
        if (node.op.kind in _WITHOUT_BLAS and not node.op.of_user) or node.op in MOVES:
            result = node.op.kernel(np, *operands, *node.params)
        else:
            with computing, one_thread:
                result = node.op.kernel(np, *operands, *node.params)
        node.value = in_c_order(result) if isinstance(result, tuple) else as_array(np, result)


def values(roots: Sequence[Node], *, progress: bool | None = None) -> list[NDArray]:
    """Values of several expressions, computed together."""
    found: dict[Node, NDArray] = {}
    wanted: list[Node] = []
    for root in dict.fromkeys(roots):
        if root.op is nodes.LITERAL:
            found[root] = value(root)
            continue
        if root.value is None and root.small:
            _direct(root)
        if root.value is not None:
            found[root] = root.value
        elif root.op is DATA:
            found[root] = root.params[0].value
        else:
            wanted.append(root)
    if wanted:
        _check_room(wanted)
        for root, blocks in zip(wanted, _compute(wanted, progress=progress), strict=True):
            whole = found[root] = _assemble(root, blocks)
            if whole.nbytes <= KEPT_BYTES:
                _remember(root, whole)
    return [found[root] for root in roots]


def _remember(node: Node, value: NDArray) -> None:
    """Keep the value of an expression; of a transpose also that of what it is the transpose of,
    since products ask for that one."""
    node.value = value
    while node.op is PERMUTE and node.inputs[0].value is None:
        value = in_c_order(value.transpose(np.argsort(node.params[0])))
        (node,) = node.inputs
        node.value = value


def _check_room(roots: Sequence[Node]) -> None:
    """Refuse at once to bring here what the caller's memory cannot hold.

    Raises
    ------
    MemoryError
        With the sizes.
    """
    size = sum(root.nbytes for root in roots)
    if size <= LOCAL_BYTES:
        return
    free = psutil.virtual_memory().available
    if size > free:
        shapes = ", ".join(str(root.shape) for root in roots)
        raise MemoryError(
            f"the values of shape {shapes} take {size:,} bytes here and {free:,} are free; keep "
            "them in chunks (persist), write them to a file, or reduce them first"
        )


def _check_plan(graph: TaskGraph, session: Any) -> None:
    """Refuse at once what neither the cluster's object stores nor its disks can hold.

    Raises
    ------
    MemoryError
        With the sizes.
    """
    written = sum(task.cost.written_bytes for task in graph)
    if written > SURELY_FITS_BYTES:
        # Most plans fit even if nothing was given up: the rest are looked at task by task.
        _refuse(memory.PlanMemory(written, written, 0), session, lambda: memory.predict(graph))


def _check_least(roots: Sequence[Node]) -> None:
    """Refuse before planning what no plan could do: many chunks take a while to plan.

    Raises
    ------
    MemoryError
        With the sizes.
    """
    need = memory.least(roots)
    if need.live_bytes > SURELY_FITS_BYTES:
        from agentic_ray.runtime import get_session

        _refuse(need, get_session())


def _refuse(
    need: memory.PlanMemory,
    session: Any,
    exactly: Callable[[], memory.PlanMemory] | None = None,
) -> None:
    """Raise MemoryError if a plan does not fit.

    Parameters
    ----------
    need : PlanMemory
        At least as much as the plan needs.
    exactly : callable, optional
        Returns what it needs; called only if ``need`` does not fit, since it takes long.
    """
    stores = [node.store_total_bytes for node in session.cluster().alive_nodes]
    free = psutil.disk_usage(tempfile.gettempdir()).free  # Ray spills there
    text = memory.refusal(need, stores, free)
    if text is not None and exactly is not None:
        text = memory.refusal(exactly(), stores, free)
    if text is not None:
        raise MemoryError(text)


def persist(roots: Sequence[Node], *, for_one_step: bool = False) -> list[Node]:
    """Leaves that hold the values of ``roots``, chunk by chunk where they were computed.

    Of a transpose they hold what it is the transpose of: it stays one, since products of
    transposes are made in other steps, with other bits, than those of other matrices.

    Parameters
    ----------
    for_one_step : bool
        The values are between two steps of one operation, and need not outlive this process: they
        are computed in it wherever that ends sooner.
    """
    held = [_under_transposes(root) for root in roots]
    wanted = [node for node in dict.fromkeys(held) if not _is_leaf(node)]
    leaves: dict[Node, Node] = {}
    for node in wanted:
        if node.small and node.device == "cpu":  # without a plan, as `value` computes it
            leaves[node] = nodes.data(value(node), node.chunks)
    planned = [node for node in wanted if node not in leaves]
    if planned:
        blocks = _compute(planned, handles=True, may_stay=for_one_step)
        leaves.update(
            (node, _leaf(node, kept(node, made)))
            for node, made in zip(planned, blocks, strict=True)
        )
    return [_over(root, leaves.get(node, node)) for root, node in zip(roots, held, strict=True)]


def _under_transposes(node: Node) -> Node:
    while node.op is PERMUTE:
        (node,) = node.inputs
    return node


def _over(root: Node, leaf: Node) -> Node:
    """The transposes of ``root`` over ``leaf``."""
    orders: list[tuple[int, ...]] = []
    while root.op is PERMUTE:
        orders.append(root.params[0])
        (root,) = root.inputs
    for order in reversed(orders):
        leaf = permuted(leaf, order)
    return leaf


def stored(like: Node, blocks: Sequence[Any]) -> Node:
    """A leaf over blocks that are task arguments (stored values or arrays), shaped as ``like``."""
    return _leaf(like, Kept(blocks))


def _leaf(like: Node, held: Kept) -> Node:
    if len(held.value) == 1 and isinstance(held.value[0], np.ndarray):
        return nodes.data(held.value[0], like.chunks, like.device)
    node = Node(STORED, (), (held,), like.shape, like.dtype, like.chunks, like.device)
    node.small = False  # however small, its value is not in this process to be computed with
    return node


def _is_leaf(node: Node) -> bool:
    return node.op.kind in ("data", "stored")


def plan(roots: Sequence[Node], *, local: bool = True) -> tuple[list[Task], list[list[Any]]]:
    """Tasks in a valid order and, for each root, its blocks as task arguments."""
    lowering = Lowering(_keep if local else _put)
    blocks = lowering.run(optimize(roots))
    return lowering.tasks, blocks


def for_tasks(roots: Sequence[Node], *, local: bool) -> tuple[list[Task], list[list[Any]]]:
    """Plan as `plan` does, for a package that puts the tasks into a graph of its own. Persisted
    values that were lost are computed again first."""
    _see_to_stored(roots)
    return plan(roots, local=local)


def is_quick(root: Node) -> bool:
    """Whether the value of ``root`` is here after milliseconds."""
    touched = 0
    for node in topological([root]):
        if node.op.of_user or (node.op is STORED and not is_here(node.params[0].value)):
            return False
        touched += node.nbytes
        if touched > QUICK_BYTES:
            return False
    return True


def runs_locally(roots: Sequence[Node]) -> bool:
    """Whether computing ``roots`` stays in the caller's process.

    A function of the user's over several chunks does not, however little data it is given: how
    long it takes cannot be told from that. A small array is in several chunks only because the
    user cut it so, and ``map_blocks(simulate, seeds)`` over chunks of one seed is the way to have
    calls run beside each other; here they would run one after the other.
    """
    touched = 0
    order = list(topological(roots))
    together = folded(order, roots)
    for node in order:
        if node in together:
            continue
        if node.op is STORED and not is_here(node.params[0].value):
            return False
        if node.op.of_user and node.blocks > 1:
            return False
        touched += node.nbytes
    return touched <= LOCAL_BYTES


def table(node: Node) -> tuple[Any, ...]:
    """The value of an expression of one block whose value is a tuple of arrays."""
    if node.small:
        if node.value is None:
            _direct(node)
        known: tuple[Any, ...] = node.value
        return known
    found: tuple[Any, ...] = _compute([node])[0][0]
    return found


def _compute(
    roots: Sequence[Node],
    *,
    handles: bool = False,
    may_stay: bool = True,
    progress: bool | None = None,
) -> list[list[Any]]:
    """The blocks of each root: arrays, or with ``handles`` what tasks can be given. ``may_stay``:
    also more than a little work may be done in this process."""
    form = prepared.form_of(roots, LOCAL_BYTES)
    known = None if form is None else prepared.find(form)
    if form is not None and known is not None and _stays(known, form, may_stay):
        return _again(known, known.given(form))
    deaths = 0
    while True:
        _see_to_stored(roots)
        try:
            return _computed(roots, form, handles=handles, may_stay=may_stay, progress=progress)
        except LostDataError:
            deaths += 1
            if deaths > MOST_DEATHS:
                raise


def _see_to_stored(roots: Sequence[Node]) -> None:
    """Compute again what was persisted and was lost with its only node.

    Raises
    ------
    SessionError
        Something was persisted in a session that has ended, or cannot be computed again.
    """
    for node in topological(roots):
        if node.op is not STORED or is_here(node.params[0].value):
            continue
        held: Kept = node.params[0]
        if _was_lost(held.value):
            held.value[:] = _compute([origin_of(node)], handles=True, may_stay=False)[0]


def _was_lost(blocks: Sequence[Any]) -> bool:
    from agentic_ray.runtime import Stored, get_session

    for block in blocks:
        if isinstance(block, Stored):
            try:
                block.check()
            except LostDataError:
                if block.stay is None or block.stay.session != get_session().name:
                    raise  # the session that lost it has ended since
                return True
    return False


def _computed(
    roots: Sequence[Node],
    form: prepared.Form | None,
    *,
    handles: bool,
    may_stay: bool,
    progress: bool | None,
) -> list[list[Any]]:
    asked, roots = roots, optimize(roots)
    is_small = local = runs_locally(roots)
    if not local:
        _check_least(roots)
    planned = _Plan(roots, local=local)
    if not local and may_stay:
        local = planned.prospect(roots).here
    if not local and (handles or planned.keys):
        planned.send()
    if not planned.keys:
        made: dict[str, Any] = {}
    elif local:
        # A function of the user's is called in the caller's own thread.
        alone = any(node.op.of_user for node in topological(roots))
        made = run_here(planned.tasks, planned.keys, count=1 if alone else None)
        if form is not None:
            prepared.keep(form, asked, planned.tasks, planned.blocks, stays=is_small)
    else:
        made = _by_session(planned, asked, handles=handles, progress=progress)
    result = [
        [made[b.key] if type(b) is Ref else b for b in row]
        for row in (planned.blocks if local else planned.sent_blocks())
    ]
    return result if handles else [_fetched(row) for row in result]


def _stays(plan: prepared.Prepared, form: prepared.Form, may_stay: bool) -> bool:
    """Whether a plan that was kept runs in this process: it touches little data, or it may stay and
    is predicted to end sooner here."""
    if plan.stays:
        return True
    if not may_stay or LOCAL_BYTES < 0:
        return False
    if plan.is_due:
        unsent = sum(leaf.nbytes for leaf in form.leaves if leaf not in _placed)
        plan.here = placing.prospect(plan.tasks, plan.outputs, put_bytes=unsent).here
    return plan.here


def _again(plan: prepared.Prepared, given: Mapping[str, Any]) -> list[list[Any]]:
    """Run a plan that was kept. Now and then it is seen how long its tasks take, and predicted in
    how many threads they end soonest."""
    looks = plan.is_due or bool(watches())
    if looks:
        plan.threads = placing.threads_for(plan.tasks)
    plan.runs += 1
    if looks or plan.threads > 1:
        made = run_here(plan.tasks, plan.outputs, count=plan.threads, given=given)
    else:
        with computing:
            made = plan.run(given)
    return plan.blocks(made, given)


class _Plan:
    """The tasks of some expressions, and the blocks of each.

    Blocks of the caller's arrays are among the tasks' arguments as they are in memory, until
    `send` puts them in the object store.
    """

    def __init__(self, roots: Sequence[Node], *, local: bool) -> None:
        self._raw: dict[Node, Sequence[Any]] = {}
        lowering = Lowering(_keep if local else self._noted)
        with collection_put_off():
            self.blocks = lowering.run(roots)
        self.tasks = lowering.tasks
        self.keys = list(dict.fromkeys(b.key for row in self.blocks for b in row if type(b) is Ref))
        self._there: dict[int, Any] = {}

    def _noted(self, node: Node, blocks: Sequence[Any]) -> list[Any]:
        self._raw[node] = blocks
        return list(blocks)

    def prospect(self, roots: Sequence[Node]) -> placing.Prospect:
        """Decide where the plan runs.

        Threads of this process never call a function of the user's, and never read from the object
        store, which is left to the executors: a Ray that dies, or is left by another thread, may
        end a process that is reading from it.
        """
        for node in topological(roots):
            if node.op.of_user:
                return placing.Prospect(False, why="it calls functions of yours")
            if node.op is STORED and not is_here(node.params[0].value):
                return placing.Prospect(False, why="its data is in the object store")
        if LOCAL_BYTES < 0:
            return placing.Prospect(False)
        unsent = sum(node.nbytes for node in self._raw if node not in _placed)
        return placing.prospect(self.tasks, self.keys, put_bytes=unsent)

    def send(self) -> None:
        """Put blocks of the caller's arrays in the object store, for the tasks that need them."""
        for node, blocks in self._raw.items():
            for block, there in zip(blocks, _put(node, blocks), strict=True):
                self._there[id(block)] = there
        if self._there:
            self.tasks = [
                replace(task, args=_with_stored(task.args, self._there)) for task in self.tasks
            ]

    def sent_blocks(self) -> list[list[Any]]:
        """The blocks of each expression as the session knows them."""
        return [_with_stored(row, self._there) for row in self.blocks]


def _with_stored(value: Any, stored: Mapping[int, Any]) -> Any:
    """Replace each object in ``value`` by the one that ``stored`` has under the object's ``id``;
    look into lists and tuples, and rebuild them."""
    if type(value) in (list, tuple):
        return type(value)([_with_stored(part, stored) for part in value])
    found = stored.get(id(value))
    return value if found is None else found


def _by_session(
    planned: _Plan, asked: Sequence[Node], *, handles: bool, progress: bool | None
) -> dict[str, Any]:
    """Have executors run a plan; return its values by key, or with ``handles`` handles on them that
    other tasks can take as arguments."""
    from agentic_ray.runtime import Run, get_session, recorded
    from agentic_ray.runtime.progress import ProgressBar

    session = get_session()

    def finish() -> Run:
        with collection_put_off():
            graph = TaskGraph(planned.tasks, planned.keys)
        _check_plan(graph, session)
        run = session.submit(graph)
        with ProgressBar("array", run.items_total, progress, session.settings) as bar:
            while not run.wait(0.1):
                bar.update(run.items_done, note=run.note)
        return run

    if handles:
        run = finish()
        run.raise_error()
        kept = run.handles()
    else:
        kept = recorded("array", lambda: content(asked), lambda: finish().result())
    return dict(zip(planned.keys, kept, strict=True))


def prospect(roots: Sequence[Node]) -> placing.Prospect:
    """Predict where the values of the optimised ``roots`` would be computed."""
    if runs_locally(roots):
        return placing.Prospect(True, why="it touches little data")
    return _Plan(roots, local=False).prospect(roots)


def content(roots: Sequence[Node]) -> list[Any]:
    """All that the values of ``roots`` depend on, for `content_key`.

    Raises
    ------
    SerializationError
        A part is in the object store, and is not read for this.
    """
    places: dict[Node, int] = {}
    found: list[Any] = []
    for node in topological(roots, through_values=True):
        if node.op is STORED:
            raise SerializationError("what is in the object store is not read for its content")
        places[node] = len(found)
        inputs = [places[source] for source in node.inputs]
        kind = (node.op.name, node.op.kernel, node.shape, node.dtype.str, node.chunks, node.device)
        found.append((kind, node.params, inputs))
    return [found, [places[root] for root in roots]]


def _fetched(blocks: list[Any]) -> list[Any]:
    """``blocks`` with what is in the object store brought here."""
    if all(isinstance(block, np.ndarray) for block in blocks):
        return blocks
    from agentic_ray.runtime import Stored, fetch

    return [fetch(block) if isinstance(block, Stored) else block for block in blocks]


def run_here(
    tasks: Sequence[Task],
    outputs: Sequence[str],
    *,
    count: int | None = None,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run tasks, listed in a valid order, in this process; values are dropped after last use.

    Parameters
    ----------
    count : int, optional
        Number of threads, of which this is one; by default the number that is predicted to be
        quickest.
    given : mapping, optional
        Values by key that tasks refer to and no task makes.
    """
    count = count or placing.threads_for(tasks)
    looking = watches()
    seconds = placing.learnt.seconds(tasks) if looking else []
    expected = placing.seconds_in(count, tasks, seconds) if looking else 0.0
    began = time.monotonic()
    ran = threads.run(tasks, outputs, count, given)
    ended = time.monotonic()
    placing.learnt.observe(tasks, ran)
    for watch in looking:
        about = f"{len(tasks):,} tasks in {count} threads of this process"
        made = sum(task.cost.written_bytes for task in tasks)
        span = Span(about, "array", CALLER, "cpu", began, began, ended, expected, made, 0)
        watch.sees_here(span)
    return ran.values


def _assemble(root: Node, blocks: Sequence[Any]) -> NDArray:
    if len(blocks) == 1:
        only: NDArray = np.asarray(blocks[0])
        return only
    whole = np.empty(root.shape, root.dtype)
    for region, block in zip(block_slices(root.chunks), blocks, strict=True):
        part = whole[region]
        if part.shape != np.shape(block):  # assignment would repeat it
            raise BlockResultError(
                f"{root.name}: a block has shape {np.shape(block)}, expected {part.shape}"
            )
        part[...] = block
    return whole


def _keep(node: Node, blocks: Sequence[Any]) -> list[Any]:
    return in_c_order(list(blocks))  # type: ignore[no-any-return]


_placed: weakref.WeakKeyDictionary[Node, tuple[Any, list[Any]]] = weakref.WeakKeyDictionary()


def _put(node: Node, blocks: Sequence[Any]) -> list[Any]:
    """Blocks of the caller's memory in the object store; small ones travel in the call."""
    from agentic_ray.runtime import get_session, put

    stay = get_session().stay
    found = _placed.get(node)
    if found is None or found[0] is not stay:  # an object store ends with the stay on its cluster
        kept_blocks = [put(in_c_order(block)) for block in blocks]
        found = _placed[node] = (stay, kept_blocks)
    return found[1]
