"""Datasets in HDF5 files through h5py: read in parallel, written one chunk after the other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import DType, NDArray
from agentic_ray.array.io.files import PathLike, Place, Stamp, replacing
from agentic_ray.array.io.reading import Region, opened, regular_grain
from agentic_ray.array.io.writing import in_regular_chunks, written
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError


@dataclass(frozen=True, slots=True)
class Hdf5Source:
    """A dataset. ``pieces``: its chunks in the file; None: contiguous."""

    stamp: Stamp
    name: str
    shape: Shape
    dtype: DType
    pieces: tuple[int, ...] | None

    def __str__(self) -> str:
        return f"{self.stamp.place.path}[{self.name}]"

    @property
    def grain(self) -> tuple[tuple[int, ...], ...]:
        if self.pieces is None:
            return ((),) * len(self.shape)
        return regular_grain(self.shape, self.pieces)

    def read(self, region: Region) -> NDArray:
        import h5py

        place = self.stamp.check()
        try:
            with place.open() as file, h5py.File(file, "r") as store:
                return np.asarray(store[self.name][region if region else ()])
        except OSError as error:
            raise SourceError(f"{self}: region {region} cannot be read: {error}") from error


def from_hdf5(
    path: PathLike,
    name: str,
    *,
    chunks: Any = "auto",
    device: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Array:
    """Return a lazy array over a dataset of an HDF5 file.

    Parameters
    ----------
    path : path or URL
    name : str
        Path of the dataset in the file.
    chunks
        Chunks as in `asarray`; by default made up of whole chunks of the file.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    KeyError
        The file has no such dataset; the message names its datasets.
    SourceError
        (a ValueError) The file is truncated, or no HDF5 file.

    Examples
    --------
    >>> import agentic_ray.array as xp, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "run.h5")
    >>> xp.to_hdf5(path, "u", xp.arange(3))
    >>> int(xp.from_hdf5(path, "u").max())
    2
    """
    import h5py

    place = Place.of(path, storage_options)
    stamp = place.stamp()
    try:
        with place.open() as file, h5py.File(file, "r") as store:
            found = store.get(name)
            if not isinstance(found, h5py.Dataset):
                names: list[str] = []
                store.visititems(
                    lambda at, entry: names.append(at) if isinstance(entry, h5py.Dataset) else None
                )
                known = ", ".join(names[:10]) or "none"
                raise KeyError(f"{place.path} has no dataset {name!r}; it has: {known}")
            if found.shape is None:
                raise InvalidTypeError(f"{place.path}[{name}] holds no values")
            dtype = np.dtype(found.dtype).newbyteorder("=")
            source = Hdf5Source(stamp, name, found.shape, dtype, found.chunks)
    except OSError as error:
        raise SourceError(
            f"{place.path}, of {stamp.size} bytes, is not a whole HDF5 file: {error}"
        ) from error
    return opened(source, chunks, device)


@dataclass(frozen=True, slots=True)
class _Hdf5Target:
    path: str
    name: str
    serial: bool = True  # HDF5 files have one writer at a time

    def __str__(self) -> str:
        return f"{self.path}[{self.name}]"

    def write(self, region: Region, /, *blocks: NDArray) -> None:
        import h5py

        with h5py.File(self.path, "r+") as store:
            (store[self.name][region if region else ()],) = blocks


def to_hdf5(
    path: PathLike, name: str, x: Any, /, *, mode: Literal["a", "w"] = "a", **options: Any
) -> None:
    """Write a dataset of a local HDF5 file; it appears when all of it is written.

    Everything else in the file stays; a dataset of this name is replaced. Chunks are computed in
    parallel and written one after the other, because the format has one writer at a time. They go
    to a copy of the file, which takes the file's name at the end: an interrupted write leaves the
    old file as it was.

    Parameters
    ----------
    path : path
    name : str
        Path of the dataset in the file.
    x : array_like
    mode : {"a", "w"}
        ``"a"``: add to an existing file. ``"w"``: replace the file as a whole.
    **options
        Further arguments of ``h5py.Group.create_dataset``, such as ``compression`` or ``chunks``.

    Raises
    ------
    InvalidArgumentError
        ``path`` is a URL, or the mode is neither.
    SourceError
        (a ValueError) A file is there, and is no HDF5 file; or ``name`` is a group of it.
    OSError
        Writing failed, and the old data are still there.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "run.h5")
    >>> xp.to_hdf5(path, "group/u", xp.arange(3))
    >>> xp.to_hdf5(path, "group/v", xp.ones(2))
    >>> xp.from_hdf5(path, "group/u").compute()
    array([0, 1, 2])
    """
    import h5py

    place = Place.of(path)
    if place.is_url:
        raise InvalidArgumentError(f"HDF5 files are written to local paths only, not {place.path}")
    if mode not in ("a", "w"):
        raise InvalidArgumentError(f"mode must be 'a' or 'w', not {mode!r}")
    array, sizes = in_regular_chunks(Array(strict_operand(x)))
    if array.size and array.ndim and max(array.numblocks) > 1:
        options.setdefault("chunks", _moderate(sizes, array.dtype))
    adds = mode == "a" and os.path.exists(place.path)
    with replacing(place) as staged:
        if adds:
            shutil.copyfile(place.path, staged.path)
        try:
            with h5py.File(staged.path, "a" if adds else "w") as store:
                found = store.get(name)
                if isinstance(found, h5py.Group):
                    raise SourceError(f"{place.path}: {name!r} is a group, not a dataset")
                if found is not None:
                    del store[name]
                store.create_dataset(name, array.shape, array.dtype, **options)
        except OSError as error:
            if adds and not h5py.is_hdf5(place.path):
                raise SourceError(f"{place.path} is no HDF5 file: {error}") from error
            raise
        written(_Hdf5Target(staged.path, name), array)


_PIECE_BYTES = 1 << 20
"""Size of the library's chunk cache; a chunk must fit in it for the cache to be of use."""


def _moderate(sizes: tuple[int, ...], dtype: DType) -> tuple[int, ...]:
    """Return the chunks of the file: an array's chunk halved along its longest axis until small."""
    result = list(sizes)
    while np.prod(result) * dtype.itemsize > _PIECE_BYTES and max(result) > 1:
        axis = int(np.argmax(result))
        # Halves of an even length keep the chunk's boundaries on those of its pieces.
        result[axis] = -(-result[axis] // 2)
    return tuple(result)
