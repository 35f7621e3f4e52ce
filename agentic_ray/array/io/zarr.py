"""Zarr arrays, versions 2 and 3 of the format, through the zarr library."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import DType, NDArray
from agentic_ray.array.io.files import PathLike, Place, replacing
from agentic_ray.array.io.reading import Region, opened, regular_grain
from agentic_ray.array.io.writing import in_regular_chunks, written
from agentic_ray.errors import InvalidArgumentError, SourceError


@dataclass(frozen=True, slots=True)
class ZarrSource:
    """An array in a zarr store. ``identity`` differs after the array was made anew."""

    place: Place
    component: str
    shape: Shape
    dtype: DType
    pieces: tuple[int, ...]
    identity: str

    def __str__(self) -> str:
        return f"{self.place.path}[{self.component}]" if self.component else self.place.path

    @property
    def grain(self) -> tuple[tuple[int, ...], ...]:
        return regular_grain(self.shape, self.pieces)

    def read(self, region: Region) -> NDArray:
        array = _opened(self.place, self.component, self.identity)
        if array.shape != self.shape:
            raise SourceError(
                f"{self} changed while it was in use: its shape was {self.shape} and is "
                f"{array.shape} now"
            )
        try:
            return np.asarray(array[region])
        except (ValueError, RuntimeError, EOFError) as error:
            raise SourceError(f"{self}: region {region} cannot be read: {error}") from error


@functools.lru_cache(maxsize=64)
def _opened(place: Place, component: str, identity: str) -> Any:
    """The array, opened once a process: reading its metadata may cost more than a chunk."""
    import zarr

    return zarr.open_array(
        place.path, path=component, mode="r", storage_options=place.storage_options or None
    )


def from_zarr(
    path: PathLike,
    component: str = "",
    *,
    chunks: Any = "auto",
    device: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Array:
    """A lazy array over a zarr array, version 2 or 3.

    Parameters
    ----------
    path : path or URL
        The store.
    component : str
        Path of the array in a store that holds a group.
    chunks
        As in `asarray`; by default made up of whole chunks of the file.

    Raises
    ------
    FileNotFoundError
        There is no such store, or no such array in it.
    SourceError
        (a ValueError) Its metadata cannot be read.
    """
    place = Place.of(path, storage_options)
    import zarr

    if not place.is_url:
        place.stamp()
    try:
        array = zarr.open_array(
            place.path, path=component, mode="r", storage_options=place.storage_options or None
        )
    except FileNotFoundError:
        raise FileNotFoundError(f"{place.path} holds no zarr array {component!r}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{place.path}: {component!r} is no zarr array: {error}") from error
    dtype = np.dtype(array.dtype).newbyteorder("=")
    pieces = getattr(array, "shards", None) or array.chunks
    source = ZarrSource(
        place, component, array.shape, dtype, tuple(pieces), _identity(place, component)
    )
    return opened(source, chunks, device)


def _identity(place: Place, component: str) -> str:
    base = place.path.rstrip("/") + (f"/{component}" if component else "")
    for name in ("zarr.json", ".zarray"):
        try:
            return Place(f"{base}/{name}", place.options).stamp().version
        except FileNotFoundError:
            continue
    return ""


@dataclass(frozen=True, slots=True)
class _ZarrTarget:
    place: Place
    component: str
    serial: bool = False

    def __str__(self) -> str:
        return self.place.path

    def write(self, region: Region, block: NDArray) -> None:
        import zarr

        options = self.place.storage_options or None
        array: Any = zarr.open_array(
            self.place.path, path=self.component, mode="r+", storage_options=options
        )
        array[region if region else ...] = block


def to_zarr(
    path: PathLike,
    x: Any,
    /,
    *,
    zarr_format: Literal[2, 3] = 3,
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Write a zarr array, each chunk a chunk of the file; it appears when all is written.

    What was at ``path`` is replaced. A local directory changes hands in one step; on an object
    store, which cannot rename, the old array is removed once the new one is complete, and then
    the new one is copied to its name.

    Parameters
    ----------
    zarr_format : {2, 3}
    **options
        Further arguments of ``zarr.create_array``, such as ``compressors``.

    Raises
    ------
    InvalidArgumentError
        There is no such version of the format.
    OSError
        Writing failed, and what was there before is there still.
    """
    if zarr_format not in (2, 3):
        raise InvalidArgumentError(f"zarr_format must be 2 or 3, not {zarr_format!r}")
    place = Place.of(path, storage_options)
    import zarr

    array, sizes = in_regular_chunks(Array(strict_operand(x)))
    with replacing(place) as staged:
        zarr.create_array(
            staged.path,
            shape=array.shape,
            chunks=sizes,
            dtype=array.dtype,
            zarr_format=zarr_format,
            storage_options=staged.storage_options or None,
            **options,
        )
        written(array, _ZarrTarget(staged, ""))
