"""Zarr arrays, versions 2 and 3 of the format, through the zarr library."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import DType, NDArray
from agentic_ray.array.io.files import PathLike, Place, replacing
from agentic_ray.array.io.reading import Region, opened, regular_grain
from agentic_ray.array.io.writing import in_regular_chunks, written
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError
from agentic_ray.graph import content_key


@dataclass(frozen=True, slots=True)
class ZarrSource:
    """An array in a zarr store. ``identity`` differs after the array was made anew.

    ``opening`` differs for each call of `from_zarr`: chunks may be written to without a trace in
    the metadata, so a value that was read before must not stand for the present one.
    """

    place: Place
    component: str
    shape: Shape
    dtype: DType
    pieces: tuple[int, ...]
    identity: str
    opening: int

    def __content_key__(self) -> str:
        """Return a key that is equal for all openings of an array, so that a resumed job finds
        it."""
        return content_key(
            "zarr", str(self), self.place.options, self.shape, self.dtype.str, self.pieces,
            self.identity,
        )  # fmt: skip

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


_openings = itertools.count()


@functools.lru_cache(maxsize=64)
def _opened(place: Place, component: str, identity: str) -> Any:
    """Open the array, once a process: reading its metadata may cost more than a chunk."""
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
    """Return a lazy array over a zarr array, version 2 or 3.

    Parameters
    ----------
    path : path or URL
        Path of the store.
    component : str
        Path of the array in a store that holds a group.
    chunks
        Chunks as in `asarray`; by default made up of whole chunks of the file.

    Raises
    ------
    FileNotFoundError
        There is no such store, or no such array in it.
    SourceError
        (a ValueError) The metadata cannot be read.

    Examples
    --------
    >>> import agentic_ray.array as xp, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "x.zarr")
    >>> xp.to_zarr(path, xp.arange(6), chunks=(3,))
    >>> xp.from_zarr(path)[2:4].compute()
    array([2, 3])
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
        place,
        component,
        array.shape,
        dtype,
        tuple(pieces),
        _identity(place, component),
        next(_openings),
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
    """An existing array; ``origin`` is where the first element is written."""

    place: Place
    component: str
    origin: tuple[int, ...] = ()
    serial: bool = False

    def __str__(self) -> str:
        return self.place.path

    def open(self) -> Any:
        import zarr

        return zarr.open_array(
            self.place.path,
            path=self.component,
            mode="r+",
            storage_options=self.place.storage_options or None,
        )

    def write(self, region: Region, /, *blocks: NDArray) -> None:
        origin = self.origin or (0,) * len(region)
        moved = tuple(
            slice(part.start + begin, part.stop + begin)
            for part, begin in zip(region, origin, strict=True)
        )
        (self.open()[moved if moved else ...],) = blocks


def to_zarr(
    path: PathLike,
    x: Any,
    /,
    component: str = "",
    *,
    chunks: int | Sequence[int] | None = None,
    region: slice | tuple[slice, ...] | None = None,
    append_axis: int | None = None,
    zarr_format: Literal[2, 3] = 3,
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Write a zarr array, or a part of one; tasks write whole chunks of the file.

    Without ``region`` and ``append_axis`` the array appears when all is written, and the old data
    at ``path`` (or at ``component`` in it) are replaced. A local directory is replaced in one step;
    on an object store, which cannot rename, the old array is removed once the new one is complete,
    and then the new one is copied to its name.

    Parameters
    ----------
    path : path or URL
    x : array_like
    component : str
        Path of the array in a group at ``path``; other arrays of the group stay.
    chunks : int or sequence of int, optional
        Chunks of the file; default: those of ``x``.
    region : slice or tuple of slices, optional
        Part of the existing array to write to. Elements outside stay. This is not one step: a
        reader may see some chunks before others.
    append_axis : int, optional
        Axis along which ``x`` is appended to the existing array. If that fails the array has its
        old shape again.
    zarr_format : {2, 3}
    storage_options : dict, optional
        Options of the URL's fsspec file system.
    **options
        Further arguments of ``zarr.create_array``, such as ``compressors``.

    Raises
    ------
    InvalidArgumentError
        There is no such version of the format; options do not go together; or ``region`` is no part
        of the array.
    FileNotFoundError
        There is no array to write to with ``region`` or ``append_axis``.
    ValueError
        The shape of ``x`` differs from that of the region.
    OSError
        Writing failed, and the old data are still there (but see ``region``).

    Examples
    --------
    >>> import agentic_ray.array as xp, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "x.zarr")
    >>> xp.to_zarr(path, xp.zeros(4))
    >>> xp.to_zarr(path, xp.ones(2), region=(slice(1, 3),))
    >>> xp.from_zarr(path).compute()
    array([0., 1., 1., 0.])
    """
    if zarr_format not in (2, 3):
        raise InvalidArgumentError(f"zarr_format must be 2 or 3, not {zarr_format!r}")
    place = Place.of(path, storage_options)
    array = Array(strict_operand(x))
    if region is not None or append_axis is not None:
        given = [
            name for name, value in (("chunks", chunks), *options.items()) if value is not None
        ]
        if given or (region is not None and append_axis is not None):
            what = ", ".join(given) or "region and append_axis together"
            raise InvalidArgumentError(
                f"to_zarr: {what} cannot be given for an array that is there"
            )
        _write_part(place, component, array, region, append_axis)
        return
    _write_whole(place, component, array, chunks, zarr_format, options)


def _write_whole(
    place: Place,
    component: str,
    array: Array,
    chunks: int | Sequence[int] | None,
    zarr_format: Literal[2, 3],
    options: Mapping[str, Any],
) -> None:
    import zarr

    if chunks is None:
        array, sizes = in_regular_chunks(array)
    else:
        sizes = (chunks,) * array.ndim if isinstance(chunks, int) else tuple(chunks)
        if len(sizes) != array.ndim or any(n < 1 for n in sizes):
            raise InvalidArgumentError(
                f"chunks {chunks!r} do not fit an array of {array.ndim} axes"
            )
        whole = options.get("shards") or sizes
        array = array.rechunk(on_pieces(array, tuple(whole), (0,) * array.ndim))
    if component:
        # The groups above are made first: an array below a name that is no group is not found.
        zarr.open_group(
            place.path, mode="a", zarr_format=zarr_format,
            storage_options=place.storage_options or None,
        ).require_group(component.strip("/").rpartition("/")[0])  # fmt: skip
        place = Place(f"{place.path.rstrip('/')}/{component.strip('/')}", place.options)
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
        written(_ZarrTarget(staged, ""), array)


def _write_part(
    place: Place,
    component: str,
    array: Array,
    region: slice | tuple[slice, ...] | None,
    append_axis: int | None,
) -> None:
    from_zarr(place.path, component, storage_options=place.storage_options)  # or a clear error
    stored = _ZarrTarget(place, component).open()
    shape: Shape = stored.shape
    if append_axis is None:
        origin, wanted = place_of_region(region, shape)
    else:
        axis = normalize_axis_index(append_axis, len(shape))
        origin = tuple([n if a == axis else 0 for a, n in enumerate(shape)])
        wanted = tuple([array.shape[a] if a == axis else n for a, n in enumerate(shape)]
                       ) if array.ndim == len(shape) else shape  # fmt: skip
    if array.shape != wanted:
        raise ValueError(f"an array of shape {array.shape} does not fit a part of shape {wanted}")
    if not np.can_cast(array.dtype, stored.dtype, "same_kind"):
        raise InvalidTypeError(f"{array.dtype} cannot be written to an array of {stored.dtype}")
    pieces = tuple(getattr(stored, "shards", None) or stored.chunks)
    array = array.rechunk(on_pieces(array, pieces, origin))
    target = _ZarrTarget(place, component, origin)
    if append_axis is None:
        written(target, array)
        return
    stored.resize(tuple([n + begin for n, begin in zip(wanted, origin, strict=True)]))
    try:
        written(target, array)
    except BaseException:
        stored.resize(shape)
        raise


def place_of_region(region: Any, shape: Shape) -> tuple[tuple[int, ...], Shape]:
    """Return where a region begins, and its shape."""
    parts = region if isinstance(region, tuple) else (region,)
    if len(parts) > len(shape) or not all(isinstance(part, slice) for part in parts):
        raise InvalidArgumentError(f"region must be up to {len(shape)} slices, not {region!r}")
    parts = (*parts, *[slice(None)] * (len(shape) - len(parts)))
    found = [part.indices(n) for part, n in zip(parts, shape, strict=True)]
    if any(step != 1 for _, _, step in found):
        raise InvalidArgumentError("region: slices must have step 1")
    return (
        tuple([start for start, _, _ in found]),
        tuple([max(0, stop - start) for start, stop, _ in found]),
    )


def on_pieces(array: Array, pieces: tuple[int, ...], origin: tuple[int, ...]) -> Any:
    """Return about the chunks of ``array``, cut where pieces of the file begin, so that no two
    tasks write to one piece. The first element lies at ``origin`` of the file."""
    result = []
    for lengths, piece, begin, n in zip(array.chunks, pieces, origin, array.shape, strict=True):
        wanted = max(lengths, default=0)
        count = max(1, round(wanted / piece)) * piece
        first = min(n, count - begin % piece)
        rest = n - first
        result.append(
            (first, *[count] * (rest // count), *([rest % count] if rest % count else []))
        )
    return tuple(result)
