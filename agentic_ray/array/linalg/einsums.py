"""Einstein's summation: einsum and its path, contracted two operands at a time."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array, check_order
from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType, Node
from agentic_ray.array.core.views import permuted, reshaped
from agentic_ray.array.linalg.products import product
from agentic_ray.array.linalg.structure import diagonal, diagonal_axes
from agentic_ray.array.outputs import delivered
from agentic_ray.array.statistics import sum as _sum

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _parsed(operands: Sequence[Any]) -> tuple[str, list[Node]]:
    """Return subscripts as text and the operands, from either of NumPy's two spellings.

    Raises
    ------
    ValueError
        There is no operand.
    TypeError
        A subscript is neither a number nor an ellipsis.
    """
    if not operands:
        raise ValueError(
            "must specify the einstein sum subscripts string and at least one operand, or at "
            "least one operand and its corresponding subscripts list"
        )
    if isinstance(operands[0], str):
        if len(operands) < 2:
            raise ValueError("No input operands")
        text = operands[0].replace(" ", "")
        return text, [strict_operand(x) for x in operands[1:]]
    arrays, lists = list(operands[0::2]), list(operands[1::2])
    result = ""
    if len(arrays) > len(lists):
        result = "->" + _letters(arrays.pop())
    text = ",".join(map(_letters, lists)) + result
    return text, [strict_operand(x) for x in arrays]


def _letters(subscripts: Any) -> str:
    text = ""
    for entry in subscripts:
        if entry is Ellipsis:
            text += "..."
        elif isinstance(entry, int | np.integer):
            if not 0 <= entry < len(_LETTERS):
                raise ValueError(f"subscript is not within the valid range [0, {len(_LETTERS)})")
            text += _LETTERS[int(entry)]
        else:
            raise TypeError("each subscript must be either an integer or an ellipsis")
    return text


def _stand_ins(nodes: Sequence[Node]) -> list[Any]:
    """Return arrays of the operands' shapes without memory of that size."""
    return [np.broadcast_to(np.empty((), node.dtype), node.shape) for node in nodes]


def einsum_path(*operands: Any, optimize: Any = "greedy", einsum_call: bool = False) -> Any:
    """Return NumPy's order of contractions for these operands, and a text that describes it.

    `einsum` contracts in this order (without ``optimize``, in the greedy one); shapes suffice to
    find it, and nothing is computed.
    """
    text, nodes = _parsed(operands)
    options: dict[str, Any] = {"optimize": optimize, "einsum_call": einsum_call}
    return np.einsum_path(text, *_stand_ins(nodes), **options)


def einsum(
    *operands: Any,
    out: Any = None,
    optimize: Any = False,
    dtype: Any = None,
    order: str = "K",
    casting: str = "safe",
) -> Any:
    """Sum products over subscripts by Einstein's rule, as in NumPy; contracts two operands at a
    time.

    Parameters
    ----------
    *operands
        Subscripts as a text and arrays, or arrays each followed by its list of subscripts.
    out : array, optional
    optimize : bool, str or list
        Order of contractions, as in NumPy. Operands are never contracted all at once here: False
        means the greedy order, too.
    dtype : dtype, optional
        Dtype in which the products and sums are computed.
    order : {"C", "F", "A", "K"}
        As in `asarray`.
    casting : str
        Conversions to ``dtype`` that are allowed.

    Raises
    ------
    ValueError
        The subscripts do not fit the operands.
    TypeError
        A conversion is not allowed.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.einsum("ij,j->i", xp.asarray([[1, 2], [3, 4]]), xp.asarray([1, 1]))
    Array([3, 7], dtype=int64)
    """
    text, nodes = _parsed(operands)
    check_order(order)
    if len(nodes) == 1 and out is None and dtype is None:
        seen = _as_view(operands[0] if not isinstance(operands[0], str) else operands[1], text)
        if seen is not None:
            return seen
    path = _contractions(text, tuple([(node.shape, node.dtype) for node in nodes]), _plan(optimize))
    inputs, result = _spelled_out(text, [node.ndim for node in nodes])
    natural = np.result_type(*[node.dtype for node in nodes])
    wanted = natural if dtype is None else np.dtype(dtype)
    for node in nodes:
        if dtype is not None and not np.can_cast(node.dtype, wanted, casting):  # type: ignore[arg-type]
            raise TypeError(
                f"Cannot cast array data from {node.dtype!r} to {wanted!r} according to the rule "
                f"{casting!r}"
            )
    terms = [(Array(cast(node, wanted)), term) for node, term in zip(nodes, inputs, strict=True)]
    for step in path:
        chosen = [terms[i] for i in sorted(step, reverse=True)]
        terms = [term for i, term in enumerate(terms) if i not in step]
        keep = set(result).union(*[term for _, term in terms])
        while len(chosen) > 1:
            first, second = chosen.pop(), chosen.pop()
            needed = keep.union(*[term for _, term in chosen])
            chosen.append(_contracted(first, second, needed))
        terms.append(_reduced(chosen[0], keep))
    value, term = terms[0]
    value, term = _reduced((value, term), set(result))
    made = Array(permuted(value._node, tuple([term.index(name) for name in result])))
    return delivered(made, out, casting)


def _as_view(operand: Any, text: str) -> Array | None:
    """Return the view that NumPy makes of one operand over whose axes nothing is summed: its axes
    in another order, or a diagonal, which is read-only here. None for other subscripts."""
    if not isinstance(operand, Array):
        return None
    _contractions(text, ((operand.shape, operand.dtype),), "greedy")  # NumPy checks the subscripts
    (term,), result = _spelled_out(text, [operand.ndim])
    if set(term) != set(result) or len(set(result)) != len(result):
        return None
    view = operand
    for name in result:
        while term.count(name) > 1:
            first = term.index(name)
            second = term.index(name, first + 1)
            view = diagonal(view, 0, first, second)
            term = term[:first] + term[first + 1 : second] + term[second + 1 :] + name
    return view.transpose(tuple([term.index(name) for name in result]))  # type: ignore[no-any-return]


def _plan(optimize: Any) -> Any:
    """Return NumPy's ``optimize`` as a parameter of `_contractions`; a value that is no order of
    contractions becomes the greedy one."""
    if isinstance(optimize, list | tuple):
        return tuple([tuple(step) if not isinstance(step, str) else step for step in optimize])
    return "greedy" if isinstance(optimize, bool) or optimize is None else optimize


@functools.lru_cache(maxsize=256)
def _contractions(
    text: str, operands: tuple[tuple[Shape, DType], ...], plan: Any
) -> tuple[tuple[int, ...], ...]:
    """Return the operands that are contracted in each step; NumPy checks the subscripts here."""
    shapes: list[Any] = [np.broadcast_to(np.empty((), dtype), shape) for shape, dtype in operands]
    order = list(plan) if isinstance(plan, tuple) and plan[0] == "einsum_path" else plan
    path = np.einsum_path(text, *shapes, optimize=order)
    np.einsum(text, *[np.empty((1,) * len(shape), dtype) for shape, dtype in operands])
    return tuple([tuple(step) for step in path[0][1:]])


def _summed(value: Array, axes: tuple[int, ...]) -> Array:
    if value.dtype.kind == "b":
        return value.any(axis=axes)  # type: ignore[no-any-return]
    return _sum(value, axis=axes, dtype=value.dtype)


def _spelled_out(text: str, ndims: Sequence[int]) -> tuple[list[str], str]:
    """Return the subscripts of each operand and of the result, without ellipsis."""
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    letters = [c for c in _LETTERS if c not in text]
    widths = [
        ndim - len(term.replace("...", "")) if "..." in term else 0
        for term, ndim in zip(terms, ndims, strict=True)
    ]
    common = letters[: max(widths, default=0)]
    spelled = [
        term.replace("...", "".join(common[len(common) - width :]))
        for term, width in zip(terms, widths, strict=True)
    ]
    if arrow:
        return spelled, right.replace("...", "".join(common))
    joined = "".join(spelled)
    once = sorted(c for c in set(joined) if joined.count(c) == 1 and c not in common)
    return spelled, "".join(common) + "".join(once)


def _reduced(entry: tuple[Array, str], keep: set[str]) -> tuple[Array, str]:
    """Take diagonals for repeated names, and sum over names that no other operand needs."""
    value, term = entry
    for name in set(term):
        while term.count(name) > 1:
            first = term.index(name)
            second = term.index(name, first + 1)
            value = diagonal_axes(value, first, second)
            term = term[:first] + term[first + 1 : second] + term[second + 1 :] + name
    gone = tuple([axis for axis, name in enumerate(term) if name not in keep])
    if gone:
        value = _summed(value, gone)
        term = "".join(name for name in term if name in keep)
    return value, term


def _contracted(
    first: tuple[Array, str], second: tuple[Array, str], keep: set[str]
) -> tuple[Array, str]:
    """Contract two operands as one stack of matrix products."""
    (a, left), (b, right) = _reduced(first, keep | set(second[1])), _reduced(
        second, keep | set(first[1]))  # fmt: skip
    shared = [name for name in left if name in right]
    batch = [name for name in shared if name in keep]
    inner = [name for name in shared if name not in keep]
    rows = [name for name in left if name not in right]
    columns = [name for name in right if name not in left]
    sizes = dict(zip(right, b.shape, strict=True))
    for name, size in zip(left, a.shape, strict=True):
        sizes[name] = max(size, sizes.get(name, 1)) if size and sizes.get(name, 1) else 0

    def arranged(value: Array, term: str, groups: Sequence[list[str]]) -> Node:
        order = [term.index(name) for group in groups for name in group]
        node = permuted(value._node, tuple(order))
        flat = tuple([math.prod(sizes[name] for name in group) for group in groups[1:]])
        return reshaped(node, (*[sizes[name] for name in groups[0]], *flat))

    made = product(
        arranged(a, left, [batch, rows, inner]), arranged(b, right, [batch, inner, columns])
    )
    names = [*batch, *rows, *columns]
    return Array(reshaped(made, tuple([sizes[name] for name in names]))), "".join(names)
