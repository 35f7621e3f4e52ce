"""Functions of blocks whose axes are named, as Dask's ``blockwise`` and ``unify_chunks``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.blocks import map_blocks
from agentic_ray.array.conversion import asarray
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.chunks import Chunks
from agentic_ray.array.manipulation import expand_dims, permute_dims
from agentic_ray.errors import InvalidArgumentError


def blockwise(
    function: Callable[..., Any],
    out_ind: Iterable[Any],
    *args: Any,
    name: str | None = None,
    token: Any = None,
    dtype: Any = None,
    adjust_chunks: Mapping[Any, Any] | None = None,
    new_axes: Mapping[Any, int] | None = None,
    align_arrays: bool = True,
    concatenate: bool | None = None,
    meta: Any = None,
    **options: Any,
) -> Array:
    """Apply ``function`` to blocks of several arrays, whose axes are matched by name.

    Parameters
    ----------
    function : callable
        Called with a block of each array, with its own axes in their own order, and with the values
        among ``args`` that have no names. It returns a block with the axes ``out_ind``.
    out_ind : iterable
        Names of the result's axes.
    *args : Array and names in turn
        Arrays, each followed by its names; or any value and None: each call gets it as it is.
    name, token
        Name for the function in plans; ``token`` is ignored.
    dtype, meta
        As in `agentic_ray.array.map_blocks`.
    adjust_chunks : mapping, optional
        Lengths of the chunks of an axis of the result: one, all of them, or a function from a
        length to the new one.
    new_axes : mapping, optional
        Lengths of axes that no array has: one, or those of chunks of the same content.
    align_arrays : bool
        False: arrays in other chunks are refused rather than cut anew.
    concatenate : bool, optional
        Whether axes that the result lacks are in one piece: needed where there are any.
    **options
        Passed on to ``function``.

    Raises
    ------
    InvalidArgumentError, InvalidTypeError
        Names, lengths or chunks do not fit; an axis is missing in the result and
        ``concatenate`` is not True.
    """
    if len(args) % 2:
        raise InvalidArgumentError("blockwise takes arrays and names of their axes in turn")
    out = list(out_ind)
    new = dict(new_axes or {})
    pairs = [(args[i], args[i + 1]) for i in range(0, len(args), 2)]
    pairs = [(x, None if names is None else tuple(names)) for x, names in pairs]
    arrays = [
        (x if isinstance(x, Array) else asarray(x), names)
        for x, names in pairs if names is not None
    ]  # fmt: skip
    if not arrays:
        raise InvalidArgumentError("blockwise needs at least one array with names of its axes")
    chunks, aligned = unified(*itertools.chain.from_iterable(arrays))
    if not align_arrays and any(
        len(a) != len(b)
        for (x, _), y in zip(arrays, aligned, strict=True)
        for a, b in zip(x.chunks, y.chunks, strict=True)
    ):
        raise InvalidArgumentError("blockwise: the arrays' chunks differ (align_arrays=False)")
    gone = [axis for axis in chunks if axis not in out]
    if gone and not concatenate:
        raise InvalidArgumentError(
            f"blockwise: the result has no axis {', '.join(map(repr, gone))}; give "
            "concatenate=True, and it is in one piece"
        )
    unknown = [axis for axis in out if axis not in chunks and axis not in new]
    if unknown:
        raise InvalidArgumentError(f"blockwise: no array has an axis {unknown[0]!r}; new_axes=")
    for axis, entry in new.items():
        if axis in chunks or axis not in out:
            raise InvalidArgumentError(f"new_axes: {axis!r} is no new axis of the result")
        if isinstance(entry, tuple | list) and len(entry) > 1:
            raise InvalidArgumentError(f"new_axes: {axis!r} can only have one chunk")
    order = [*gone, *(axis for axis in out if axis not in new)]
    spread = iter([_spread(x, names, order) for x, (_, names) in zip(aligned, arrays, strict=True)])
    blocks = _Blocks(
        function,
        tuple([None if names is None else _places(names, order) for _, names in pairs]),
    )
    given = [x if names is None else next(spread) for x, names in pairs]
    return map_blocks(
        blocks, *given, name=name or getattr(function, "__name__", None), dtype=dtype, meta=meta,
        drop_axis=tuple(range(len(gone))) or None,
        new_axis=tuple([out.index(axis) for axis in out if axis in new]) or None,
        chunks=tuple([_lengths(axis, chunks, new, adjust_chunks or {}) for axis in out]),
        **options,
    )  # fmt: skip


def _spread(x: Array, names: Sequence[Any], order: Sequence[Any]) -> Array:
    """Put the axes of ``x`` in ``order``, with length 1 where it has none."""
    kept = [axis for axis in order if axis in names]
    if len(kept) != len(names):
        raise InvalidArgumentError(f"blockwise: an array's axes {names} have a name twice")
    moved = permute_dims(x, tuple([names.index(axis) for axis in kept]))
    return expand_dims(moved, tuple([i for i, axis in enumerate(order) if axis not in names]))


def _places(names: Sequence[Any], order: Sequence[Any]) -> tuple[int, ...]:
    """Return for each axis of an array its place in ``order``."""
    return tuple([order.index(axis) for axis in names])


def _lengths(
    axis: Any, chunks: Mapping[Any, Any], new: Mapping[Any, Any], adjusted: Mapping[Any, Any]
) -> tuple[int, ...]:
    if axis in new:
        entry = new[axis]
        lengths = tuple(entry) if isinstance(entry, tuple | list) else (entry,)
    else:
        lengths = chunks[axis]
    change = adjusted.get(axis)
    if change is None:
        return lengths
    if callable(change):
        return tuple([int(change(n)) for n in lengths])
    if isinstance(change, int | np.integer):
        return (int(change),) * len(lengths)
    if len(change) != len(lengths):
        raise InvalidArgumentError(
            f"adjust_chunks: {axis!r} has {len(lengths)} chunks, not {len(change)}"
        )
    return tuple(change)


@dataclass(frozen=True, slots=True, eq=False)
class _Blocks:
    """Kernel that calls ``function`` with blocks that were spread over all axes.

    ``places`` are, for each argument, the places of its axes; None: the argument is no block.
    """

    function: Callable[..., Any]
    places: tuple[tuple[int, ...] | None, ...]

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.function

    def __call__(self, *args: Any, **options: Any) -> Any:
        own = [
            arg if places is None else _gathered(arg, places)
            for arg, places in zip(args, self.places, strict=True)
        ]
        return self.function(*own, **options)


def _gathered(block: Any, places: tuple[int, ...]) -> Any:
    others = tuple([axis for axis in range(block.ndim) if axis not in places])
    bare = block.transpose((*others, *places))
    return bare.reshape(bare.shape[len(others) :])


def unified(*args: Any) -> tuple[dict[Any, tuple[int, ...]], list[Any]]:
    """Cut arrays alike along axes of the same name.

    Parameters
    ----------
    *args : array_like and names in turn
        Arrays, each followed by its names. An axis of length 1 is broadcast where others of the
        name are longer. A value with None for names is returned as it is.

    Returns
    -------
    chunks : dict
        Lengths of the chunks by name: cut wherever one of the arrays is.
    arrays : list

    Raises
    ------
    InvalidArgumentError
        Lengths differ, or there are too few or too many names.
    """
    if len(args) % 2:
        raise InvalidArgumentError("expected arrays and names of their axes in turn")
    pairs: list[tuple[Any, Any]] = []
    sizes: dict[Any, int] = {}
    cuts: dict[Any, set[int]] = {}
    for i in range(0, len(args), 2):
        x, names = args[i], args[i + 1]
        if names is None:
            pairs.append((x, None))
            continue
        x = x if isinstance(x, Array) else asarray(x)
        names = tuple(names)
        if len(names) != x.ndim:
            raise InvalidArgumentError(f"{len(names)} names {names} for an array of {x.ndim} axes")
        pairs.append((x, names))
        for axis, lengths in zip(names, x.chunks, strict=True):
            length, known = sum(lengths), sizes.get(axis, 1)
            if axis not in sizes or known == 1:
                sizes[axis], cuts[axis] = length, set(grids.offsets(lengths))
            elif length == known:
                cuts[axis] |= set(grids.offsets(lengths))
            elif length != 1:
                raise InvalidArgumentError(f"axis {axis!r} is {known} and {length} long")
    chunks = {
        axis: tuple([int(n) for n in np.diff(sorted(at))]) or (0,) for axis, at in cuts.items()
    }
    return chunks, [x if names is None else _cut(x, names, chunks) for x, names in pairs]


def _cut(x: Array, names: Sequence[Any], chunks: Mapping[Any, tuple[int, ...]]) -> Array:
    wanted: Chunks = tuple(
        [
            chunks[axis] if sum(chunks[axis]) == length else (length,)
            for axis, length in zip(names, x.shape, strict=True)
        ]
    )
    return x if wanted == x.chunks else x.rechunk(wanted)
