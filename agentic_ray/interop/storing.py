"""Writes arrays to stores that xarray opened. If any process can write to the store, the tasks that
make the chunks write them; otherwise they are written from here, chunk by chunk."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.conversion import asarray
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import NDArray
from agentic_ray.array.io.reading import Region
from agentic_ray.array.io.writing import all_written
from agentic_ray.array.io.zarr import on_pieces, place_of_region
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError

_AT_ONCE_BYTES = 64 << 20
"""Arrays of at most this size together are computed whole before they are written from here."""


def stored(
    sources: Any,
    targets: Any,
    *,
    regions: Any = None,
    lock: Any = None,
    compute: bool = True,
    return_stored: bool = False,
    **options: Any,
) -> Any:
    """Write arrays to array-like stores.

    Parameters
    ----------
    sources, targets : array or sequence of arrays, store or sequence of stores
        Arrays and their stores. A store is assigned to by slices. To zarr arrays in a file system
        each chunk is written by the task that makes it, where it was made; no two tasks write to
        one piece of the file. Other stores, such as netCDF files that are open here, are written
        from here.
    regions : tuple of slices or sequence of them, optional
        Part of each target that is written; None: all of it.
    lock : optional
        Lock held while writing; with one everything is written from here.
    compute : bool
        False: nothing is written before the returned delayed value of Dask's is computed.
    return_stored : bool
        Refused: read the written data with the library that wrote it.

    Raises
    ------
    InvalidArgumentError, InvalidTypeError
        Numbers of sources, targets and regions differ; unknown arguments; ``compute=False``
        without Dask.
    ValueError
        A source has another shape than the region.
    """
    if return_stored or options:
        unknown = ", ".join(["return_stored"] * bool(return_stored) + list(options))
        raise InvalidTypeError(f"store of arrays of agentic_ray has no argument {unknown}")
    if not isinstance(sources, list | tuple):
        sources, targets, regions = [sources], [targets], [regions]
    targets = list(targets)
    if not isinstance(regions, list):
        regions = [regions] * len(targets)
    if not len(sources) == len(targets) == len(regions):
        raise InvalidArgumentError(
            f"{len(sources)} arrays for {len(targets)} stores and {len(regions)} regions"
        )
    parts = [
        _Part.of(asarray(source), target, region)
        for source, target, region in zip(sources, targets, regions, strict=True)
    ]
    guard = None if lock is None or isinstance(lock, bool) else lock
    if compute:
        _write(parts, guard)
        return None
    try:
        import dask  # only its delayed values say "later" to xarray
    except ImportError:
        raise InvalidArgumentError(
            "store: compute=False gives a delayed value of Dask's, which is not installed"
        ) from None
    return dask.delayed(_write, pure=False)(parts, guard)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """An array and the part of a store that it goes to, from ``origin`` on."""

    array: Array
    target: Any
    origin: tuple[int, ...]

    @classmethod
    def of(cls, array: Array, target: Any, region: Any) -> _Part:
        shape: Shape = tuple(target.shape) if hasattr(target, "shape") else array.shape
        origin, wanted = (0,) * len(shape), shape
        if region is not None:
            whole = region if isinstance(region, tuple) else (region,)
            origin, wanted = place_of_region(whole, shape)
        if array.shape != wanted:
            raise ValueError(f"an array of shape {array.shape} does not fit a part of {wanted}")
        return cls(array, target, origin)

    def moved(self, region: Region) -> Region:
        return tuple(
            [
                slice(part.start + begin, part.stop + begin)
                for part, begin in zip(region, self.origin, strict=True)
            ]
        )


def _write(parts: Sequence[_Part], lock: Any) -> None:
    there = [part for part in parts if lock is None and _is_shared(part.target)]
    here = [part for part in parts if part not in there]
    if there:
        all_written([(_SharedTarget(part), [_on_pieces(part)]) for part in there])
    if here:
        with lock if lock is not None else contextlib.nullcontext():
            for part, region, block in _blocks(here):
                part.target[part.moved(region) or ...] = block


def _blocks(parts: Sequence[_Part]) -> Iterator[tuple[_Part, Region, NDArray]]:
    """Yield parts of few bytes as a whole; larger ones stay where they are made, and are brought
    here chunk by chunk."""
    nodes = [part.array._node for part in parts]
    if sum(node.nbytes for node in nodes) <= _AT_ONCE_BYTES:
        for part, value in zip(parts, evaluate.values(nodes), strict=True):
            yield part, tuple([slice(0, n) for n in value.shape]), np.array(value)
        return
    for part, node in zip(parts, evaluate.persist(nodes), strict=True):
        held = Array(node)
        for region in grids.block_slices(node.chunks):
            yield part, region, held[region].compute()


# --- zarr --------------------------------------------------------------------------------------


def _is_shared(target: Any) -> bool:
    """Whether a write by any process to ``target`` is a write to the same store.

    This is not so for stores in memory, archives that are open for writing and transactions of
    other libraries: a copy of them in another process takes the write, and is lost.
    """
    try:
        import zarr
    except ImportError:
        return False
    if not isinstance(target, zarr.Array):
        return False
    kind = type(target.store)
    if kind is zarr.storage.LocalStore:
        return True
    return kind is zarr.storage.FsspecStore and "memory" not in _protocols(target.store)


def _protocols(store: Any) -> tuple[str, ...]:
    fs = getattr(
        store.fs, "sync_fs", store.fs
    )  # zarr wraps file systems without async methods in this
    found = fs.protocol
    return (found,) if isinstance(found, str) else tuple(found)


def _on_pieces(part: _Part) -> Array:
    pieces = tuple(getattr(part.target, "shards", None) or part.target.chunks)
    if not part.array.ndim:
        return part.array
    return part.array.rechunk(on_pieces(part.array, pieces, part.origin))


@dataclass(frozen=True, slots=True, eq=False)
class _SharedTarget:
    """A zarr array that tasks write to."""

    part: _Part
    serial: bool = False
    writing: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __reduce__(self) -> tuple[Any, ...]:
        bare = _Part(asarray(0), self.part.target, self.part.origin)  # without the data
        return _SharedTarget, (bare, self.serial, self.writing)

    def __content_key__(self) -> str:
        return f"xarray-store-{self.writing}"

    def __str__(self) -> str:
        return str(self.part.target.store_path)

    def write(self, region: Region, /, *blocks: NDArray) -> None:
        (block,) = blocks
        self.part.target[self.part.moved(region) or ...] = block
