"""Reads and writes NumPy's own files: npy, and arrays in npz archives."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import check_numbers, strict_operand
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import DType, NDArray
from agentic_ray.array.core.views import concatenated
from agentic_ray.array.io.files import PathLike, Place, Stamp, places_of, replacing
from agentic_ray.array.io.reading import Region, opened
from agentic_ray.array.io.writing import slabs, written
from agentic_ray.errors import InvalidTypeError, SourceError


@dataclass(frozen=True, slots=True)
class _Layout:
    """Layout of elements in a file. ``stored`` is the dtype there, perhaps of foreign byte
    order."""

    shape: Shape
    stored: DType
    fortran: bool
    offset: int

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape) * self.stored.itemsize


@dataclass(frozen=True, slots=True)
class NpySource:
    """An uncompressed npy file, or such a member of an npz archive."""

    stamp: Stamp
    layout: _Layout

    def __str__(self) -> str:
        return self.stamp.place.path

    @property
    def shape(self) -> Shape:
        return self.layout.shape

    @property
    def dtype(self) -> DType:
        return self.layout.stored.newbyteorder("=")

    @property
    def grain(self) -> tuple[tuple[int, ...], ...]:
        return ((),) * len(self.layout.shape)

    def read(self, region: Region) -> NDArray:
        place = self.stamp.check()
        layout = self.layout
        if 0 in layout.shape:
            return np.empty(layout.shape, layout.stored)[region]
        if not place.is_url:
            mapped: NDArray = np.memmap(
                place.path, layout.stored, "r", layout.offset, layout.shape or (1,),
                "F" if layout.fortran else "C",
            )  # fmt: skip
            return mapped[region] if layout.shape else mapped.reshape(())
        if layout.fortran:
            return self._ranged(place, layout.shape[::-1], region[::-1]).T
        return self._ranged(place, layout.shape, region)

    def _ranged(self, place: Place, shape: Shape, region: Region) -> NDArray:
        """Read the rows that hold the region in one request."""
        layout = self.layout
        if not shape:
            low, rows = 0, ()
        else:
            low, count = region[0].start, max(0, region[0].stop - region[0].start)
            rows = (count, *shape[1:])
        row = math.prod(shape[1:]) * layout.stored.itemsize
        length = math.prod(rows) * layout.stored.itemsize
        with place.open() as file:
            file.seek(layout.offset + low * row)
            data = file.read(length)
        if len(data) != length:
            raise SourceError(f"{place.path}: {len(data)} of {length} bytes could be read")
        found = np.frombuffer(data, layout.stored).reshape(rows)
        if not shape:
            return found
        return found[(slice(None, None, region[0].step), *region[1:])]


@dataclass(frozen=True, slots=True)
class NpzMember:
    """A compressed member of an npz archive, which can only be read from its start."""

    stamp: Stamp
    name: str
    layout: _Layout

    def __str__(self) -> str:
        return f"{self.stamp.place.path}[{self.name}]"

    @property
    def shape(self) -> Shape:
        return self.layout.shape

    @property
    def dtype(self) -> DType:
        return self.layout.stored.newbyteorder("=")

    @property
    def grain(self) -> tuple[tuple[int, ...], ...]:
        return tuple([(length,) for length in self.layout.shape])

    def read(self, region: Region) -> NDArray:
        place = self.stamp.check()
        try:
            with place.open() as file, zipfile.ZipFile(file) as archive:
                found: NDArray = np.lib.format.read_array(archive.open(f"{self.name}.npy"))
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise SourceError(f"{self} is damaged: {error}") from error
        return found[region] if self.layout.shape else found


def _layout(file: IO[bytes], name: str) -> _Layout:
    """Read the header at the file's position.

    Raises
    ------
    SourceError
        The file is no npy file, or its header is cut off.
    InvalidTypeError
        The array holds other elements than numbers.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise InvalidTypeError(f"{name}: npy {version} is for records with names beyond ASCII")
    except ValueError as error:
        raise SourceError(f"{name} is not a readable npy file: {error}") from error
    try:
        check_numbers(dtype)
    except InvalidTypeError as error:
        raise InvalidTypeError(f"{name}: {error}") from None
    return _Layout(shape, dtype, fortran and len(shape) > 1, file.tell())


def from_npy(
    path: PathLike | Sequence[PathLike],
    *,
    chunks: Any = "auto",
    device: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Array:
    """Return a lazy array over npy files; local ones are memory-mapped chunk by chunk.

    Parameters
    ----------
    path : path, URL, pattern or sequence of these
        Several files are joined along their first axis. A pattern such as ``"day-*.npy"`` stands
        for the files that fit it, in the order of their names.
    chunks, device
        As in `asarray`.
    storage_options : dict, optional
        Options of the URL's fsspec file system.

    Raises
    ------
    FileNotFoundError
        There is no such file, or none fits a pattern.
    SourceError
        (a ValueError) A file is truncated, longer than its header says, not npy, or of another
        shape or dtype than the first.
    InvalidTypeError
        A file holds objects or texts.

    Examples
    --------
    >>> import agentic_ray.array as xp, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "x.npy")
    >>> xp.to_npy(path, xp.arange(4))
    >>> int(xp.from_npy(path).sum())
    6
    """
    sources = [_npy_source(place) for place in places_of(path, storage_options)]
    first = sources[0]
    if len(sources) == 1:
        return opened(first, chunks, device)
    for source in sources:
        if not source.shape or source.shape[1:] != first.shape[1:] or source.dtype != first.dtype:
            raise SourceError(
                f"{source} holds {source.dtype} of shape {source.shape}; to be joined with "
                f"{first} it must hold {first.dtype} of shape (n, {str(first.shape[1:])[1:]}"
            )
    joined = concatenated([opened(s, "auto", device)._node for s in sources], 0)
    result = Array(joined)
    return result if isinstance(chunks, str) else result.rechunk(chunks)


def _npy_source(place: Place) -> NpySource:
    stamp = place.stamp()
    if not place.is_url and os.path.isdir(place.path):
        raise IsADirectoryError(f"{place.path} is a directory, not an npy file")
    with place.open() as file:
        layout = _layout(file, place.path)
    if stamp.size != layout.end:
        raise SourceError(
            f"{place.path} has {stamp.size} bytes; {layout.stored} of shape {layout.shape} "
            f"take {layout.end}"
        )
    return NpySource(stamp, layout)


def from_npz(
    path: PathLike,
    *,
    chunks: Any = "auto",
    device: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Array]:
    """Return the arrays of an npz archive by name, lazily.

    Uncompressed members (``np.savez``) are read chunk by chunk; compressed ones can only be read as
    a whole, so they are one chunk each.

    Raises
    ------
    FileNotFoundError, SourceError, InvalidTypeError
        Raised as by `from_npy`.

    Examples
    --------
    >>> import agentic_ray.array as xp, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "x.npz")
    >>> xp.savez(path, a=xp.arange(4), b=xp.ones(2))
    >>> {name: array.shape for name, array in xp.from_npz(path).items()}
    {'a': (4,), 'b': (2,)}
    """
    place = Place.of(path, storage_options)
    stamp = place.stamp()
    result: dict[str, Array] = {}
    try:
        with place.open() as file, zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if not member.filename.endswith(".npy"):
                    continue
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as content:
                    layout = _layout(content, f"{place.path}[{name}]")
                if layout.end != member.file_size:
                    raise SourceError(
                        f"{place.path}[{name}] has {member.file_size} bytes; {layout.stored} of "
                        f"shape {layout.shape} take {layout.end}"
                    )
                if member.compress_type == zipfile.ZIP_STORED:
                    begin = _data_offset(file, member)
                    where = _Layout(
                        layout.shape, layout.stored, layout.fortran, begin + layout.offset
                    )
                    result[name] = opened(NpySource(stamp, where), chunks, device)
                else:
                    whole = opened(NpzMember(stamp, name, layout), -1, device)
                    result[name] = whole if isinstance(chunks, str) else whole.rechunk(chunks)
    except (zipfile.BadZipFile, EOFError) as error:
        raise SourceError(
            f"{place.path}, of {stamp.size} bytes, is not a whole npz archive: {error}"
        ) from error
    return result


def _data_offset(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Return where a member's content begins: after its local header, whose extra field may differ
    in length from the one in the archive's directory."""
    file.seek(member.header_offset)
    header = file.read(30)
    name, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    return member.header_offset + 30 + name + extra


@dataclass(frozen=True, slots=True)
class _NpyTarget:
    path: str
    layout: _Layout
    serial: bool = False

    def __str__(self) -> str:
        return self.path

    def write(self, region: Region, /, *blocks: NDArray) -> None:
        (block,) = blocks
        if not block.size:
            return
        layout = self.layout
        if not os.path.exists(self.path):
            raise FileNotFoundError(
                f"{self.path} is not there on this node; write to a file system that all share"
            )
        mapped: NDArray = np.memmap(
            self.path, layout.stored, "r+", layout.offset, layout.shape or (1,)
        )
        mapped.reshape(layout.shape)[region] = block
        mapped.flush()  # type: ignore[attr-defined]


def to_npy(path: PathLike, x: Any, /, *, storage_options: Mapping[str, Any] | None = None) -> None:
    """Write an npy file; it appears under its name when all of it is written.

    The tasks that compute the chunks of a local file write them in parallel (on several nodes: to a
    shared file system); to a URL they are sent in order.

    Raises
    ------
    FileNotFoundError
        The directory does not exist.
    OSError
        Writing failed, and the old data are still there.

    Examples
    --------
    >>> import agentic_ray.array as xp, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "x.npy")
    >>> xp.to_npy(path, xp.arange(4))
    >>> os.path.exists(path)
    True
    """
    place = Place.of(path, storage_options)
    x = Array(strict_operand(x))
    head = {
        "descr": np.lib.format.dtype_to_descr(x.dtype),
        "fortran_order": False,
        "shape": x.shape,
    }
    with replacing(place) as staged:
        if staged.is_url:
            with staged.create() as file:
                np.lib.format.write_array_header_1_0(file, head)
                for slab in slabs(x):
                    file.write(np.ascontiguousarray(slab).tobytes())
            return
        with open(staged.path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, head)
            layout = _Layout(x.shape, x.dtype, False, file.tell())
            file.truncate(layout.end)
        written(_NpyTarget(staged.path, layout), x)
