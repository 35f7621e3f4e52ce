"""Paths and URLs: the state of a file when it was opened, and replacing a file in one step.

Knows nothing of arrays or formats. A path with ``://`` is opened through fsspec.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError
from agentic_ray.sources._files import sync

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a file, or of a directory that is one store.

    Parameters
    ----------
    path : str
        An absolute path, or a URL for fsspec.
    options : str
        Options of the URL's file system as JSON, so that a place can be hashed.
    """

    path: str
    options: str = ""

    @classmethod
    def of(cls, path: PathLike, storage_options: Mapping[str, Any] | None = None) -> Place:
        """Return the place that a user names; ``file://`` is a local path.

        Raises
        ------
        InvalidTypeError
            ``path`` is not a path, or ``storage_options`` hold more than plain values.
        """
        if not isinstance(path, str | os.PathLike):
            raise InvalidTypeError(f"a path must be a str or os.PathLike, not {path!r}")
        text = os.fspath(path)
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        if "://" not in text:
            return cls(os.path.abspath(os.path.expanduser(text)))
        try:
            options = json.dumps(dict(storage_options or {}), sort_keys=True)
        except TypeError as error:
            raise InvalidTypeError(f"storage_options must be plain values: {error}") from None
        return cls(text, options)

    @property
    def is_url(self) -> bool:
        return "://" in self.path

    @property
    def storage_options(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.options) if self.options else {}
        return found

    def filesystem(self) -> tuple[Any, str]:
        """Return the fsspec file system of a URL, and the path in it."""
        import fsspec

        system, path = fsspec.core.url_to_fs(self.path, **self.storage_options)
        return system, path

    def open(self) -> IO[bytes]:
        """Open the file for reading, with seek.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        """
        if not self.is_url:
            return open(self.path, "rb")
        system, path = self.filesystem()
        opened: IO[bytes] = system.open(path, "rb")
        return opened

    def create(self) -> IO[bytes]:
        """Open a new file for writing."""
        if not self.is_url:
            return open(self.path, "wb")
        system, path = self.filesystem()
        made: IO[bytes] = system.open(path, "wb")
        return made

    def stamp(self) -> Stamp:
        """Return the present state of the file.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        """
        if not self.is_url:
            try:
                found = os.stat(self.path)
            except FileNotFoundError:
                raise FileNotFoundError(errno.ENOENT, "no such file", self.path) from None
            # A directory's size and time tell nothing of the files below it.
            if os.path.isdir(self.path):
                return Stamp(self, 0, "")
            return Stamp(self, found.st_size, str(found.st_mtime_ns))
        system, path = self.filesystem()
        try:
            info = system.info(path)
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "no such file", self.path) from None
        names = ("ETag", "etag", "mtime", "LastModified")
        version = next((info[name] for name in names if name in info), "")
        return Stamp(self, int(info.get("size") or 0), str(version))


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file as it was when it was opened. ``version`` makes expressions over it differ after it
    was rewritten; only the size is checked when chunks are read, since copies of a file on several
    nodes may differ in time."""

    place: Place
    size: int
    version: str

    def check(self) -> Place:
        """Return the place, if the file there still has the size it had.

        Raises
        ------
        SourceError
            The file has another size.
        """
        size = self.place.stamp().size
        if size != self.size:
            raise SourceError(
                f"{self.place.path} changed while it was in use: it had {self.size} bytes when "
                f"it was opened and has {size} now"
            )
        return self.place


def places_of(
    paths: Any, storage_options: Mapping[str, Any] | None, *, suffix: str = ""
) -> list[Place]:
    """Return the places of one path, a pattern such as ``"day-*.npy"``, or a sequence of these.

    A pattern stands for the files that fit it, in the order of their names. If ``suffix`` is given,
    a directory stands for the files below it whose names end so.

    Raises
    ------
    InvalidArgumentError
        No path was given.
    FileNotFoundError
        No file fits a pattern, or a directory holds none.
    """
    if not isinstance(paths, list | tuple):
        paths = [paths]
    if not paths:
        raise InvalidArgumentError("no path was given")
    return [found for path in paths for found in _expanded(Place.of(path, storage_options), suffix)]


def _expanded(place: Place, suffix: str) -> list[Place]:
    """Return the places that a pattern or a directory stands for; else the place itself."""
    system, path = place.filesystem() if place.is_url else (None, place.path)
    is_folder = system.isdir(path) if system is not None else os.path.isdir(path)
    if suffix and is_folder:
        pattern = f"{path.rstrip('/')}/**/*{suffix}"
    elif not any(sign in path for sign in "*?[") or (system is None and os.path.exists(path)):
        return [place]
    else:
        pattern = path
    if system is None:
        names = [name for name in glob.glob(pattern, recursive=True) if os.path.isfile(name)]
    else:
        names = [system.unstrip_protocol(name) for name in system.glob(pattern)]
    if not names:
        raise FileNotFoundError(errno.ENOENT, "no file fits", f"{place.path} ({pattern})")
    return [Place(name, place.options) for name in sorted(names)]


@contextlib.contextmanager
def replacing(place: Place) -> Iterator[Place]:
    """Give a place to write to inside; at the end it takes ``place``'s name.

    If the body fails, its output is removed and the old data stay. A local file or directory is
    replaced in one step; on an object store, which has no renaming, new data are copied there after
    all of them were written.
    """
    staged = Place(_beside(place.path), place.options)
    try:
        yield staged
        if place.is_url:
            _replace_remote(staged, place)
        else:
            _replace_local(staged.path, place.path)
    finally:
        _remove(staged)


def _beside(path: str) -> str:
    head, slash, tail = path.rstrip("/").rpartition("/")
    return f"{head}{slash}.{tail}.{uuid.uuid4().hex[:8]}.partial"


def _replace_local(staged: str, path: str) -> None:
    if os.path.isfile(staged):
        sync(staged)
        if not os.path.isdir(path):
            os.replace(staged, path)
            return
    if not os.path.lexists(path):
        os.rename(staged, path)
    elif not _exchange(staged, path):
        old = _beside(path)
        os.rename(path, old)
        try:
            os.rename(staged, path)
        except OSError:
            os.rename(old, path)
            raise
        _remove(Place(old))


_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def _exchange(one: str, other: str) -> bool:
    """Swap two paths in one step (Linux); return False where that cannot be done."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    done: int = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return done == 0


def _replace_remote(staged: Place, place: Place) -> None:
    system, new = staged.filesystem()
    _, old = place.filesystem()
    if system.isdir(new):
        if system.exists(old):
            system.rm(old, recursive=True)
        system.mv(new, old, recursive=True)
    else:
        system.mv(new, old)


def _remove(place: Place) -> None:
    if place.is_url:
        system, path = place.filesystem()
        if system.exists(path):
            system.rm(path, recursive=True)
    elif os.path.isdir(place.path):
        shutil.rmtree(place.path)
    elif os.path.lexists(place.path):
        os.unlink(place.path)
