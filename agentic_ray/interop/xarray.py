"""The chunk manager through which xarray works on our arrays.

xarray finds it by the entry point ``agentic_ray`` of the group ``xarray.chunkmanagers``; arrays
load that, too, when they meet xarray (`agentic_ray.array.meeting`), for the sake of `indexing`.
Everything is lazy except `ChunkManager.compute`, ``persist`` and ``store``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index
from xarray.core.indexing import ExplicitlyIndexed, ImplicitToExplicitIndexingAdapter
from xarray.namedarray.parallelcompat import ChunkManagerEntrypoint

import agentic_ray.array as namespace
from agentic_ray.array.array_object import Array
from agentic_ray.array.blocks import map_blocks
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import check_numbers
from agentic_ray.array.core.chunks import Chunks
from agentic_ray.array.gufuncs import apply_gufunc
from agentic_ray.array.io.reading import on_grain, opened
from agentic_ray.array.taking import take
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.interop.blockwise import blockwise, unified
from agentic_ray.interop.folds import reduced, scanned
from agentic_ray.interop.indexing import install
from agentic_ray.interop.loading import LazySource, is_sendable
from agentic_ray.interop.storing import stored

install()

_ONLY_HINTS = frozenset({"name", "token", "inline_array", "meta", "fancy", "asarray"})
"""Arguments of Dask's ``from_array`` that concern only how Dask keeps values, not the values."""


class ChunkManager(ChunkManagerEntrypoint[Array]):  # type: ignore[misc]  # xarray is optional
    """xarray's interface to chunked arrays, for ours.

    See xarray's ``ChunkManagerEntrypoint`` for the purpose of each method.
    """

    array_cls: type[Array]
    available: bool = True

    def __init__(self) -> None:
        self.array_cls = Array

    def chunks(self, data: Array) -> Chunks:
        """Return the lengths of the chunks along each axis."""
        return data.chunks

    @property
    def array_api(self) -> ModuleType:
        """Namespace that the arrays belong to."""
        return namespace

    # --- chunks --------------------------------------------------------------------------

    def normalize_chunks(
        self,
        chunks: Any,
        shape: tuple[int, ...] | None = None,
        limit: int | str | None = None,
        dtype: Any = None,
        previous_chunks: Any = None,
    ) -> Chunks:
        """Return a grid from chunks as users write them.

        Parameters
        ----------
        chunks
            As in `agentic_ray.array.asarray`; None for an axis: as in ``previous_chunks``.
        shape : tuple of int, optional
            Shape; not needed if ``chunks`` has all lengths.
        limit : int or str, optional
            Most bytes of a chunk, where ``chunks`` is ``"auto"``.
        dtype : optional
            Dtype of the elements; default: that of floats.
        previous_chunks : tuple, optional
            Chunks in which the data is stored: axes that are ``"auto"`` are cut where stored chunks
            begin.

        Raises
        ------
        InvalidArgumentError, InvalidTypeError
            The chunks do not fit ``shape``, or are no chunks.
        """
        if shape is None:
            if not isinstance(chunks, tuple | list) or not all(
                isinstance(entry, tuple | list) for entry in chunks
            ):
                raise InvalidArgumentError(f"chunks {chunks!r} need a shape")
            shape = tuple([sum(entry) for entry in chunks])
        if isinstance(chunks, Mapping):
            given = grids.by_axis(dict(chunks), len(shape))
            chunks = tuple([given.get(axis) for axis in range(len(shape))])
        if not isinstance(chunks, tuple | list):
            chunks = (chunks,) * len(shape)
        chunks = _of_one_axis(chunks, len(shape))
        before = tuple(previous_chunks) if previous_chunks else (None,) * len(shape)
        if len(chunks) != len(shape) or len(before) != len(shape):
            raise InvalidArgumentError(f"{len(chunks)} chunk entries for an array of shape {shape}")
        free = [isinstance(entry, str) for entry in chunks]
        if limit is not None:
            size = limit if isinstance(limit, str) else f"{int(limit)} B"
            chunks = [size if entry == "auto" else entry for entry in chunks]
        wanted = [
            old if entry is None else entry for entry, old in zip(chunks, before, strict=True)
        ]
        grid = grids.normalize(tuple(wanted), shape, np.dtype(float if dtype is None else dtype))
        return tuple(
            [
                on_grain(lengths, _pieces(old, length)) if is_free else lengths
                for lengths, old, length, is_free in zip(grid, before, shape, free, strict=True)
            ]
        )

    def rechunk(self, data: Array, chunks: Any, **kwargs: Any) -> Array:
        """Cut ``data`` in other chunks; None for an axis: as it is."""
        balance = bool(kwargs.pop("balance", False))
        _take_hints("rechunk", kwargs, frozenset({"method", "threshold"}))
        if isinstance(chunks, Mapping):
            chunks = {axis: entry for axis, entry in chunks.items() if entry is not None}
        elif isinstance(chunks, tuple | list):
            chunks = _of_one_axis(chunks, data.ndim)
            chunks = {axis: entry for axis, entry in enumerate(chunks) if entry is not None}
        return data.rechunk(chunks, balance=balance)

    def unify_chunks(self, *args: Any, **kwargs: Any) -> tuple[dict[Any, Any], list[Any]]:
        """Put arrays in one grid, from arrays and their axes' names in turn; return that grid by
        name, and the arrays."""
        _take_hints("unify_chunks", kwargs, frozenset({"warn"}))
        return unified(*args)

    def get_auto_chunk_size(self) -> int:
        """Return the bytes of a chunk of a large array."""
        return grids.rules().elements(np.dtype(np.uint8))

    def shuffle(
        self, x: Array, indexer: Sequence[Sequence[int]], axis: int, chunks: Any = "auto"
    ) -> Array:
        """Put the elements of ``x`` along ``axis`` in the order of ``indexer``, whose groups lie in
        one chunk each."""
        if chunks not in (None, "auto"):
            raise InvalidArgumentError(f"shuffle: only chunks='auto' is there, not {chunks!r}")
        axis = normalize_axis_index(axis, x.ndim)
        order = np.asarray(list(itertools.chain.from_iterable(indexer)), dtype=np.intp)
        most = max(x.chunks[axis])
        lengths = list[int]()
        for group in indexer:
            if lengths and lengths[-1] + len(group) <= most:
                lengths[-1] += len(group)
            elif len(group):
                lengths.append(len(group))
        shuffled: Array = take(x, order, axis=axis)
        return shuffled.rechunk({axis: tuple(lengths) or (0,)})

    # --- values --------------------------------------------------------------------------

    def from_array(self, data: Any, chunks: Any, **kwargs: Any) -> Any:
        """Return a lazy array over ``data``, which is read chunk by chunk when values are asked
        for.

        Text and Python objects, which our arrays cannot hold, stay a NumPy array.

        Parameters
        ----------
        data : array_like
            Data. Each chunk of xarray's lazy arrays is read where it is used. Arrays that cannot be
            sent to other processes, or only with all their data, are read now; so are NumPy's.
        chunks
            As in `normalize_chunks`.
        **kwargs
            ``device`` as in `agentic_ray.array.asarray`; arguments of Dask's ``from_array``.
        """
        device = kwargs.pop("device", None)
        _take_hints("from_array", kwargs, _ONLY_HINTS)
        dtype = np.dtype(data.dtype) if isinstance(data.dtype, np.dtype) else None
        if dtype is None or dtype.hasobject or dtype.kind in "OSUT":
            return np.asarray(data)
        check_numbers(dtype)
        grid = self.normalize_chunks(chunks, data.shape, dtype=dtype)
        lazy = isinstance(data, ExplicitlyIndexed | ImplicitToExplicitIndexingAdapter)
        if lazy and data.shape and is_sendable(data):
            return opened(LazySource(data, grid), grid, device)
        if not isinstance(data, Array):
            data = np.asarray(data)
        return namespace.asarray(data, device=device, chunks=grid)

    def compute(self, *data: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Compute values together and return NumPy arrays; values that are no arrays of ours stay
        as they are."""
        progress = kwargs.pop("progress", None)
        _take_hints("compute", kwargs, frozenset())
        nodes = [x._node for x in data if isinstance(x, Array)]
        found = iter(evaluate.values(nodes, progress=progress))
        return tuple([np.array(next(found)) if isinstance(x, Array) else x for x in data])

    def persist(self, *data: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Return arrays over the same values, computed now and kept where they were made."""
        _take_hints("persist", kwargs, frozenset())
        nodes = [x._node for x in data if isinstance(x, Array)]
        found = iter(evaluate.persist(nodes))
        return tuple([Array(next(found)) if isinstance(x, Array) else x for x in data])

    def store(self, sources: Any, targets: Any, **kwargs: Any) -> Any:
        """Write arrays to stores: see `agentic_ray.interop.storing.stored`."""
        kwargs.pop("flush", None)  # xarray's own store flushes the written data
        return stored(sources, targets, **kwargs)

    # --- functions of chunks -------------------------------------------------------------

    def map_blocks(
        self,
        func: Callable[..., Any],
        *args: Any,
        dtype: Any = None,
        chunks: Any = None,
        drop_axis: Any = None,
        new_axis: Any = None,
        **kwargs: Any,
    ) -> Array:
        """Apply ``func`` to each chunk: see `agentic_ray.array.map_blocks`."""
        kwargs.pop("token", None)
        return map_blocks(
            func, *args, dtype=dtype, chunks=chunks, drop_axis=drop_axis, new_axis=new_axis,
            **kwargs,
        )  # fmt: skip

    def apply_gufunc(
        self,
        func: Callable[..., Any],
        signature: str,
        *args: Any,
        axes: Any = None,
        axis: int | None = None,
        keepdims: bool = False,
        output_dtypes: Any = None,
        output_sizes: dict[str, int] | None = None,
        vectorize: bool | None = None,
        allow_rechunk: bool = False,
        meta: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Apply ``func`` over loop axes: see `agentic_ray.array.apply_gufunc`."""
        return apply_gufunc(
            func, signature, *args, axes=axes, axis=axis, keepdims=keepdims,
            output_dtypes=output_dtypes, output_sizes=output_sizes, vectorize=bool(vectorize),
            allow_rechunk=allow_rechunk, meta=meta, **kwargs,
        )  # fmt: skip

    def blockwise(
        self, func: Callable[..., Any], out_ind: Iterable[Any], *args: Any, **kwargs: Any
    ) -> Array:
        """Apply ``func`` to the blocks whose axes have the same names."""
        return blockwise(func, out_ind, *args, **kwargs)

    def reduction(
        self,
        arr: Array,
        func: Callable[..., Any],
        combine_func: Callable[..., Any] | None = None,
        aggregate_func: Callable[..., Any] | None = None,
        axis: int | Sequence[int] | None = None,
        dtype: Any = None,
        keepdims: bool = False,
    ) -> Array:
        """Fold chunks by ``func``, the results by ``combine_func`` in a tree, the last ones by
        ``aggregate_func``."""
        return reduced(arr, func, combine_func, aggregate_func, axis, dtype, keepdims)

    def scan(
        self,
        func: Callable[..., Any],
        binop: Callable[..., Any],
        ident: float,
        arr: Array,
        axis: int | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> Array:
        """Scan chunks by ``func``, and put them together along ``axis`` by ``binop``."""
        # The method and the source of a prefix change no value: the last element of a chunk is its
        # total. No chunk needs the identity.
        _take_hints("scan", kwargs, frozenset({"method", "preop"}))
        return scanned(func, binop, arr, axis, dtype)


def _of_one_axis(chunks: Any, ndim: int) -> Any:
    """Return chunks with the numbers for a vector as the lengths of all its chunks, as in Dask."""
    if ndim == 1 and len(chunks) > 1 and all(isinstance(n, int | np.integer) for n in chunks):
        return (tuple(chunks),)
    return chunks


def _pieces(stored: Any, length: int) -> tuple[int, ...]:
    """Return the lengths of the chunks that an axis is stored in; without any it is in one."""
    if isinstance(stored, tuple | list):
        return tuple(stored)
    if isinstance(stored, int | np.integer) and stored > 0 and length:
        return grids.regular(length, int(stored))
    return ()


def _take_hints(method: str, kwargs: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse keywords without an effect here.

    Raises
    ------
    InvalidTypeError
        A keyword is neither known nor None or False.
    """
    unknown = list(_unknown(kwargs, frozenset(known)))
    if unknown:
        raise InvalidTypeError(
            f"{method} of arrays of agentic_ray has no argument {', '.join(unknown)}"
        )


def _unknown(kwargs: Mapping[str, Any], known: frozenset[str]) -> Iterator[str]:
    for name, value in kwargs.items():
        if name not in known and value is not None and value is not False:
            yield repr(name)
