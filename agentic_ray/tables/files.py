"""Finding files by path, folder, pattern or URL, and telling whether one changed while it was read.

Local paths are found as by `agentic_ray.sources`; URLs by pyarrow's file systems, or by fsspec's.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError
from agentic_ray.sources._files import Paths, find_files, is_hidden_name
from agentic_ray.tables.stores import reaching, store_error

MANIFEST = "_manifest.json"
"""File in the folder of a table that says what was written there, by which job."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A file as it was when work on it was planned.

    Parameters
    ----------
    filesystem : pyarrow.fs.FileSystem
    path : str
        Path in it.
    size, mtime_ns : int
        ``mtime_ns`` is 0 where the file system knows no times.
    """

    filesystem: Any
    path: str
    size: int
    mtime_ns: int

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def now(self) -> Origin:
        """Return the file as it is now.

        Raises
        ------
        FileNotFoundError
            It is not there.
        """
        info = self.filesystem.get_file_info(self.path)
        if info.type != pafs.FileType.File:
            raise FileNotFoundError(
                f"{self.path} is not there any more, or not on this node; a file must be at the "
                "same path on every node"
            )
        return Origin(self.filesystem, self.path, int(info.size or 0), info.mtime_ns or 0)

    def check(self, since: Origin | None = None) -> Origin:
        """Return the file as it is now, if it is as planned, and as it was ``since``.

        Raises
        ------
        SourceError
            It has another size than when the work was planned, or was written to meanwhile. (The
            time of a copy on another node may differ from that of the plan.)
        """
        found = self.now()
        if found.size != self.size or (since is not None and found.mtime_ns != since.mtime_ns):
            raise SourceError(
                f"{self.path} changed while it was in use: it had {self.size} bytes when the work "
                f"was planned and has {found.size} now"
                + ("" if found.size != self.size else ", written meanwhile")
            )
        return found


def find_origins(paths: Paths, suffixes: Sequence[str], filesystem: Any = None) -> list[Origin]:
    """Return the files that ``paths`` names, in a fixed order.

    Parameters
    ----------
    paths : path, URL, or sequence of them
        Files, folders, or patterns with ``*``, ``**`` and, for local paths, ``?`` and ``[…]``.
    suffixes : sequence of str
        Ends of the names that count in a folder.
    filesystem : pyarrow.fs.FileSystem or fsspec file system, optional
        Where the paths are; by default local, or as their URLs say.

    Raises
    ------
    FileNotFoundError
        A path does not exist, a pattern or a folder has no such file.
    InvalidArgumentError, InvalidTypeError
        A URL or a file system cannot be used.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if filesystem is not None:
        filesystem = as_filesystem(filesystem)
    origins: list[Origin] = []
    for path in several:
        if isinstance(path, os.PathLike):
            path = os.fspath(path)
        if not isinstance(path, str):
            raise InvalidTypeError(f"a path must be a str or os.PathLike, not {path!r}")
        own, inside = filesystem, path
        if own is None and "://" in path:
            own, inside = of_url(path)
        if own is None or isinstance(own, pafs.LocalFileSystem):
            local = pafs.LocalFileSystem()
            found = [os.path.abspath(file) for file in find_files(inside, suffixes)]
            origins += [Origin(local, file, 0, 0).now() for file in found]
        else:
            with reaching(own, inside):
                origins += _expanded(own, inside, tuple(suffixes))
    if not origins:
        raise InvalidArgumentError("no path was given")
    return origins


def as_filesystem(given: Any) -> Any:
    """Return pyarrow's file system for one of its own or of fsspec.

    Raises
    ------
    InvalidTypeError
        It is neither.
    """
    if isinstance(given, pafs.FileSystem):
        return given
    if hasattr(given, "protocol") and hasattr(given, "open"):
        given.invalidate_cache()  # others may have written since it listed a folder
        return pafs.PyFileSystem(pafs.FSSpecHandler(given))
    raise InvalidTypeError(
        f"filesystem must be a pyarrow.fs.FileSystem or of fsspec, not {type(given).__name__}"
    )


def of_url(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it, which may be a pattern.

    Raises
    ------
    InvalidArgumentError
        The protocol is not known, or its package is not there.
    StorageError
        The store cannot be reached.
    """
    # pyarrow takes the text of a URL as it is: the pattern is put behind what it makes of the rest.
    place, mark, query = url.partition("?")
    head, star, tail = place.partition("*")
    base, slash, rest = head.rpartition("/") if star else (place, "", "")
    pattern = f"/{rest}{star}{tail}" if slash else ""
    shown = re.sub(r"//[^/@]*@", "//…@", place)  # without a key
    try:
        filesystem, inside = pafs.FileSystem.from_uri(base + mark + query)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        try:
            import fsspec  # an extra: only where pyarrow does not know the protocol
        except ImportError:
            raise InvalidArgumentError(
                f"{shown}: {error}; install fsspec and the package of this protocol"
            ) from error
        try:
            found, inside = fsspec.core.url_to_fs(base + mark + query)
        except (ImportError, ValueError) as problem:
            raise InvalidArgumentError(f"{shown} cannot be used: {problem}") from problem
        filesystem = as_filesystem(found)
    except OSError as error:  # a bucket is asked where it is, unless the URL says so
        raise store_error(shown, error) from error
    return filesystem, inside + pattern


def _expanded(filesystem: Any, path: str, suffixes: tuple[str, ...]) -> list[Origin]:
    if "*" in path:
        base = path.partition("*")[0].rpartition("/")[0]
        matches = re.compile(_pattern(path)).fullmatch
        below = [info for info in _below(filesystem, base) if not is_hidden(info.path, base)]
        found = [info for info in written(filesystem, base, below) if matches(info.path)]
        problem = absent_bucket(filesystem, path) or f"no file matches {path}"
    else:
        info = filesystem.get_file_info(path)
        if info.type == pafs.FileType.NotFound:
            missing = absent_bucket(filesystem, path)
            raise FileNotFoundError(f"{path} does not exist" + (missing and f": {missing}"))
        if info.type == pafs.FileType.File:
            found, problem = [info], ""
        else:
            found = [
                info
                for info in written(filesystem, path, _below(filesystem, path))
                if info.path.lower().endswith(suffixes or ("",)) and not is_hidden(info.path, path)
            ]
            problem = f"the folder {path} has no file whose name ends in {' or '.join(suffixes)}"
    if not found:
        raise FileNotFoundError(problem)
    found.sort(key=lambda info: info.path)
    return [
        Origin(filesystem, info.path, int(info.size or 0), info.mtime_ns or 0) for info in found
    ]


def is_hidden(path: str, folder: str) -> bool:
    """Whether a name in the path, from ``folder`` on, is hidden."""
    return any(is_hidden_name(name) for name in path[len(folder) :].split("/"))


def absent_bucket(filesystem: Any, path: str) -> str:
    """Return text that says so if the bucket of an object store is not there, else ""."""
    if not any(kind in filesystem.type_name for kind in ("s3", "gcs", "gs", "abfs")):
        return ""
    bucket = path.lstrip("/").partition("/")[0]
    if "*" in bucket or filesystem.get_file_info(bucket).type != pafs.FileType.NotFound:
        return ""
    return f"there is no bucket {bucket}"


def written(filesystem: Any, folder: str, found: Sequence[Any]) -> list[Any]:
    """Return those of the files below a folder far away that a finished job has written, if a table
    was written there: those that its manifest names.

    Raises
    ------
    SourceError
        The first job that writes there is not done, or has died.
    """
    path = f"{folder.rstrip('/')}/{MANIFEST}"
    if not any(info.path.rstrip("/") == path for info in found):
        return list(found)
    with filesystem.open_input_stream(path) as stream:
        content = json.loads(stream.read())
    if content.get("pending"):
        raise SourceError(
            f"{folder} is being written by job {content['job']}, which is not done, or has died"
        )
    named = {f"{folder.rstrip('/')}/{file['path']}" for file in content["files"]}
    there = [info for info in found if info.path in named]
    missing = named.difference(info.path for info in there)
    if missing:
        raise SourceError(f"{min(missing)}, which {path} names, is not there")
    return there


def _below(filesystem: Any, base: str) -> list[Any]:
    selector = pafs.FileSelector(base, allow_not_found=True, recursive=True)
    return [info for info in filesystem.get_file_info(selector) if info.type == pafs.FileType.File]


def _pattern(path: str) -> str:
    """Return the regular expression of a pattern: ``**/`` is any folders, ``*`` stays in one."""
    parts = re.split(r"(\*\*/|\*)", path)
    known = {"**/": "(?:.*/)?", "*": "[^/]*"}
    return "".join(known.get(part, re.escape(part)) for part in parts)
