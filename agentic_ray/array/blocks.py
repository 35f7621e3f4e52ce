"""Users' own kernels over chunks: map_blocks, map_overlap, apply_gufunc."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import (
    align,
    broadcast_shapes,
    gufunc,
    gufunc_op,
    gufunc_picks,
    strict_operand,
)
from agentic_ray.array.core.node import Node, Op, make
from agentic_ray.array.core.standard import own
from agentic_ray.array.core.views import rechunk, sliced
from agentic_ray.array.repeating import pad
from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph import Kernel, accepts_xp


@dataclass(frozen=True, slots=True)
class UserKernel:
    """A user's function of blocks as a kernel; it gets ``xp`` if it asks for it.

    ``on_gpu`` is what is called on GPUs; without it blocks are never sent to one.
    """

    function: Callable[..., Any]
    on_gpu: Callable[..., Any] | None
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def host_only(self) -> bool:
        return self.on_gpu is None

    def __call__(self, xp: Any, *blocks: Any) -> Any:
        function = self.function if xp is np or self.on_gpu is None else self.on_gpu
        options = dict(self.options)
        if accepts_xp(function):
            options["xp"] = own(xp)
        return function(*blocks, **options)

    def named(self, operation: str) -> str:
        """The name under which what it takes is learnt."""
        return f"{operation}.{getattr(self.function, '__qualname__', 'function')}"


def _kernel(function: Callable[..., Any], options: dict[str, Any]) -> UserKernel:
    named = tuple(sorted(options.items()))
    if isinstance(function, Kernel):
        cpu, gpu = function.codelet.cpu, function.codelet.gpu
        assert cpu is not None
        return UserKernel(cpu, gpu, named)
    return UserKernel(function, function if accepts_xp(function) else None, named)


def _probed(kernel: UserKernel, nodes: Sequence[Node], ndims: Sequence[int]) -> np.dtype[Any]:
    """The dtype of a user's kernel, from a call on blocks of one element.

    Raises
    ------
    InvalidArgumentError
        The kernel cannot take such blocks: the caller has to name the dtype.
    """
    samples = [np.ones((1,) * n, node.dtype) for n, node in zip(ndims, nodes, strict=True)]
    try:
        with np.errstate(all="ignore"):
            return np.asarray(kernel(np, *samples)).dtype
    except Exception as error:  # user code
        raise InvalidArgumentError(
            f"the dtype of the result is not known, since the function failed on a block of one "
            f"element ({error}); give dtype="
        ) from error


def map_blocks(
    function: Callable[..., Any],
    *arrays: Array,
    dtype: Any = None,
    chunks: Any = None,
    **options: Any,
) -> Array:
    """``function`` of each chunk.

    Parameters
    ----------
    function : callable or codelet
        ``f(block, ...) -> block``. With a parameter ``xp`` it is given numpy or cupy; without
        one, and no version for GPUs, it is called on CPUs only.
    *arrays : Array
        Aligned to one grid of chunks after broadcasting.
    dtype
        Of the result; None: found by a call on a block of one element.
    chunks : tuple of tuples of int, optional
        Of the result, as many as there are blocks, where blocks change in shape.
    **options
        Passed on to ``function``.

    Raises
    ------
    InvalidArgumentError
        No array; another number of chunks; or the dtype cannot be found.
    """
    nodes = [strict_operand(x) for x in arrays]
    if not nodes:
        raise InvalidArgumentError("map_blocks needs at least one array")
    shape = broadcast_shapes([node.shape for node in nodes], "map_blocks")
    grid = grids.unify(shape, [(node.shape, node.chunks, node.nbytes) for node in nodes])
    aligned = tuple([align(node, shape, grid) for node in nodes])
    kernel = _kernel(function, options)
    wanted = np.dtype(dtype) if dtype is not None else _probed(
        kernel, nodes, [node.ndim for node in nodes])  # fmt: skip
    out = grid if chunks is None else tuple(tuple(axis) for axis in chunks)
    if grids.block_count(out) != grids.block_count(grid):
        raise InvalidArgumentError(
            f"{grids.block_count(grid)} blocks go in, {grids.block_count(out)} are to come out"
        )
    name = kernel.named("map_blocks")
    op = Op(name, "tasks", _whole_blocks(kernel), _lower_map_blocks, of_user=True)
    return Array(make(op, aligned, (kernel,), grids.shape_of(out), wanted, out))


def _whole_blocks(kernel: UserKernel) -> Callable[..., Any]:
    """The kernel for arrays of one block each."""

    def call(xp: Any, *values: Any) -> Any:
        return kernel(xp, *values[:-1])

    return call


def _lower_map_blocks(node: Node, lowering: Any) -> list[Any]:
    (kernel,) = node.params
    columns = []
    big = max(node.inputs, key=lambda source: source.blocks)
    wanted = grids.numblocks(big.chunks)
    for source in node.inputs:
        values = lowering.blocks(source)
        under = grids.blocks_under(grids.numblocks(source.chunks), wanted)
        columns.append([values[i] for i in under])
    rows = zip(*columns, strict=True)
    return list(lowering.call(node, kernel, rows, flops=lowering.work(node)))


def map_overlap(
    function: Callable[..., Any],
    x: Array,
    *,
    depth: int | Sequence[int],
    boundary: str = "reflect",
    dtype: Any = None,
    **options: Any,
) -> Array:
    """``function`` of each chunk with a margin of its neighbours, which is cut off afterwards.

    Parameters
    ----------
    function : callable or codelet
        ``f(block) -> block`` of the same shape.
    depth : int or sequence of int
        Width of the margin, for all axes or each.
    boundary : str
        How the array goes on at its edges: ``"reflect"``, ``"nearest"``, ``"periodic"``, or a
        number.
    dtype, **options
        As in `map_blocks`.

    Raises
    ------
    ValueError
        A chunk is thinner than the margin.
    """
    node = strict_operand(x)
    depths = [depth] * node.ndim if isinstance(depth, int) else [int(d) for d in depth]
    if len(depths) != node.ndim or any(d < 0 for d in depths):
        raise ValueError(f"depth {depth!r} does not fit an array of {node.ndim} axes")
    modes = {"reflect": "symmetric", "nearest": "edge", "periodic": "wrap"}
    widths = [(d, d) for d in depths]
    if boundary in modes:
        wide = pad(Array(node), widths, mode=modes[boundary])._node
    else:
        wide = pad(Array(node), widths, constant_values=boundary)._node
    kernel = _kernel(function, options)
    wanted = np.dtype(dtype) if dtype is not None else _probed(kernel, [node], [node.ndim])
    params = (kernel, tuple(depths))
    op = Op(kernel.named("map_overlap"), "tasks", _trimmed, _lower_overlap, of_user=True)
    return Array(make(op, (wide,), params, node.shape, wanted, node.chunks))


def _trimmed(xp: Any, block: Any, kernel: UserKernel, depths: tuple[int, ...]) -> Any:
    result = kernel(xp, block)
    return result[tuple([slice(d, n - d) for d, n in zip(depths, result.shape, strict=True)])]


def _lower_overlap(node: Node, lowering: Any) -> list[Any]:
    (wide,) = node.inputs
    kernel, depths = node.params
    rows = []
    for region in grids.block_slices(node.chunks):
        index = tuple(
            [("s", r.start, r.stop - r.start + 2 * d, 1) for r, d in
             zip(region, depths, strict=True)]
        )  # fmt: skip
        part = sliced(wide, index)
        (value,) = lowering.blocks(rechunk(part, grids.single(part.shape)))
        rows.append((value,))
    work = lowering.work(node)
    return list(lowering.call(node, _trimmed, rows, params=(kernel, depths), flops=work))


def apply_gufunc(
    function: Callable[..., Any],
    signature: str,
    *arrays: Array,
    output_dtypes: Any = None,
    output_sizes: dict[str, int] | None = None,
    **options: Any,
) -> Array | tuple[Array, ...]:
    """``function`` over the loop axes of its operands, as NumPy's generalised ufuncs.

    Parameters
    ----------
    function : callable or codelet
        Takes and returns stacks: core axes are the last ones.
    signature : str
        Such as ``"(i),(i)->()"``. Core axes are put in one chunk.
    output_dtypes : dtype or sequence of dtype, optional
        None: found by a call on operands of one element (one output only).
    output_sizes : dict, optional
        Lengths of core axes that no operand has.
    **options
        Passed on to ``function``.

    Raises
    ------
    InvalidArgumentError
        The signature cannot be read, or does not fit the operands.
    """
    inputs, outputs = _parse(signature)
    nodes = [strict_operand(x) for x in arrays]
    if len(nodes) != len(inputs):
        raise InvalidArgumentError(f"{signature!r} takes {len(inputs)} arrays, not {len(nodes)}")
    sizes: dict[str, int] = dict(output_sizes or {})
    for node, core in zip(nodes, inputs, strict=True):
        if node.ndim < len(core):
            raise InvalidArgumentError(f"{signature!r} does not fit an array of {node.ndim} axes")
        for name, length in zip(core, node.shape[node.ndim - len(core) :], strict=True):
            if sizes.setdefault(name, length) != length:
                raise InvalidArgumentError(f"core axis {name!r} is {sizes[name]} and {length} long")
    unknown = {name for core in outputs for name in core} - set(sizes)
    if unknown:
        raise InvalidArgumentError(f"lengths of {sorted(unknown)} are not known: output_sizes=")
    kernel = _kernel(function, options)
    if output_dtypes is None:
        found = _probed(kernel, nodes, [len(core) for core in inputs])
        dtypes = [found] * len(outputs)
    elif isinstance(output_dtypes, list | tuple):
        dtypes = [np.dtype(entry) for entry in output_dtypes]
    else:
        dtypes = [np.dtype(output_dtypes)] * len(outputs)
    cores = [tuple([sizes[name] for name in core]) for core in outputs]
    op = gufunc_op(kernel.named("apply_gufunc"), kernel, of_user=True)
    made = gufunc(op, nodes, [len(core) for core in inputs], cores[0], dtypes[0])
    if len(outputs) == 1:
        return Array(made)
    return tuple(Array(part) for part in gufunc_picks(made, list(zip(cores, dtypes, strict=True))))


def _parse(signature: str) -> tuple[list[list[str]], list[list[str]]]:
    text = signature.replace(" ", "")
    part = r"\((?:\w+(?:,\w+)*)?\)"
    if not re.fullmatch(rf"{part}(?:,{part})*->{part}(?:,{part})*", text):
        raise InvalidArgumentError(f"not a signature: {signature!r}; write e.g. '(i),(i)->()'")
    left, _, right = text.partition("->")
    inputs, outputs = (
        [[name for name in core.split(",") if name] for core in re.findall(r"\(([^)]*)\)", side)]
        for side in (left, right)
    )
    return inputs, outputs
