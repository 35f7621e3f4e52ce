"""Finding files by path, directory or pattern, and opening them on whichever node reads them.

Compressed files are unpacked once per node into the user's cache directory, because a byte range of
a compressed file cannot be read on its own. The content of files is not looked at here.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import os
import shutil
import socket
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError

PathLike = str | os.PathLike[str]
Paths = PathLike | Sequence[PathLike]

Packing = Literal["", "gz", "zip"]


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was when work on it was planned.

    ``size`` is that of the unpacked content in bytes. ``mtime_ns`` makes the keys of tasks differ
    after the file was rewritten; it is not checked on reading, since copies on other nodes may
    well differ in it.
    """

    path: str
    size: int
    mtime_ns: int
    packing: Packing = ""

    @classmethod
    def of(cls, path: PathLike) -> File:
        """Return the file at ``path``, unpacked into the cache if its name ends in .gz or .zip."""
        absolute = os.path.abspath(os.fspath(path))
        packing: Packing = packing_of(absolute)
        mtime_ns = os.stat(absolute).st_mtime_ns
        return cls(absolute, os.path.getsize(_plain_path(absolute, packing)), mtime_ns, packing)

    @property
    def name(self) -> str:
        """Last component of the path."""
        return os.path.basename(self.path)

    def local_path(self) -> str:
        """Return the path of the unpacked content on this node.

        Raises
        ------
        FileNotFoundError
            There is no such file on this node.
        SourceError
            Its size differs from that when the work was planned, or it cannot be unpacked.
        """
        try:
            plain = _plain_path(self.path, self.packing)
            size = os.path.getsize(plain)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{self.path} does not exist on node {socket.gethostname()}; a file must be at "
                "the same path on every node, for example on a shared file system"
            ) from None
        if size != self.size:
            raise SourceError(
                f"{self.path} changed while it was in use: it had {self.size} bytes when the "
                f"work was planned and has {size} on node {socket.gethostname()}"
            )
        return plain

    def open(self) -> IO[bytes]:
        """Open the unpacked content for reading. Errors are those of `local_path`."""
        return open(self.local_path(), "rb")

    def line_number(self, offset: int) -> int:
        """Return the number, from 1, of the text line that holds byte ``offset``; reads up to
        there."""
        lines = 1
        with self.open() as content:
            while offset > 0 and (block := content.read(min(offset, 1 << 20))):
                lines += block.count(b"\n")
                offset -= len(block)
        return lines


def packing_of(path: PathLike) -> Packing:
    """Return the compression of a file of this name; empty for none."""
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    return "gz" if suffix == ".gz" else "zip" if suffix == ".zip" else ""


def find_files(paths: Paths, suffixes: Iterable[str] = ()) -> list[str]:
    """Return the files that ``paths`` names, in a fixed order.

    Parameters
    ----------
    paths : path or sequence of paths
        Files, directories (searched to any depth, leaving out names that start with ``.`` or
        ``_``, but not ``_column=value``) and patterns as understood by `glob.glob` with ``**``.
        The order is that of ``paths``, and by name within a directory or pattern.
    suffixes : iterable of str
        Files in a directory count when their lower-case name ends in one of these; any when empty.

    Raises
    ------
    FileNotFoundError
        A path does not exist, a pattern matches nothing, or a directory has no such file.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    if not isinstance(paths, Sequence) or isinstance(paths, bytes):
        raise InvalidTypeError(f"a path or a sequence of paths is needed, not {paths!r}")
    if not paths:
        raise InvalidArgumentError("no path was given")
    endings = tuple(suffixes)
    found: list[str] = []
    for path in paths:
        if not isinstance(path, str | os.PathLike):
            raise InvalidTypeError(f"a path must be a str or os.PathLike, not {path!r}")
        found += _expand(os.path.expanduser(os.fspath(path)), endings)
    return found


def is_hidden_name(name: str) -> bool:
    """Whether files and folders of this name are left out: those that begin with ``.`` or ``_``,
    but ``_column=value``, which has the rows of a value."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _expand(path: str, endings: tuple[str, ...]) -> list[str]:
    if os.path.isdir(path):
        above = len(Path(path).parts)
        inside = [
            str(file)
            for file in sorted(Path(path).rglob("*"))
            if (not endings or file.name.lower().endswith(endings))
            and not any(map(is_hidden_name, file.parts[above:]))
            and file.is_file()
        ]
        if not inside:
            kinds = f" whose name ends in {' or '.join(endings)}" if endings else ""
            raise FileNotFoundError(f"the directory {path} has no file{kinds}")
        return inside
    if os.path.exists(path):
        return [path]
    if glob.has_magic(path):
        matches = sorted(
            match for match in glob.glob(path, recursive=True) if os.path.isfile(match)
        )
        if not matches:
            raise FileNotFoundError(f"no file matches {path}")
        return matches
    raise FileNotFoundError(_not_found(path))


def _not_found(path: str) -> str:
    """Say how far the path exists, and which names are there instead."""
    missing = Path(os.path.abspath(path))
    parent = missing.parent
    if not parent.is_dir():
        return f"{path} does not exist, nor does the directory {parent}"
    key = missing.name.lower()
    near = sorted(
        entry.name for entry in parent.iterdir() if entry.name.lower().startswith(key[:3])
    )
    hint = f"; {parent} has {', '.join(near[:5])}" if near else ""
    return f"{path} does not exist{hint} (working directory: {os.getcwd()})"


def _plain_path(path: str, packing: Packing) -> str:
    """Return the path of the unpacked content of ``path`` on this node; unpack it the first time.

    The cache entry is named by the hash of path, modification time and size. It appears in one
    step, so that readers never see half a file, and replaces entries of older versions.
    """
    if not packing:
        return path
    stat = os.stat(path)
    of_path = hashlib.sha256(os.path.realpath(path).encode()).hexdigest()[:16]
    version = hashlib.sha256(b"%d,%d" % (stat.st_mtime_ns, stat.st_size)).hexdigest()[:16]
    directory = _cache_directory()
    entry = directory / f"{of_path}-{version}"
    if not entry.exists():
        handle, partial = tempfile.mkstemp(prefix=f".{of_path}-", dir=directory)
        try:
            with os.fdopen(handle, "wb") as target, _unpacked(path, packing) as content:
                shutil.copyfileobj(content, target, 1 << 20)
            os.replace(partial, entry)
        except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise SourceError(f"{path} cannot be unpacked: {error}") from error
        finally:
            Path(partial).unlink(missing_ok=True)
        for older in directory.glob(f"{of_path}-*"):
            if older != entry:
                older.unlink(missing_ok=True)
    return str(entry)


@contextmanager
def _unpacked(path: str, packing: Packing) -> Iterator[IO[bytes]]:
    if packing == "gz":
        with gzip.open(path, "rb") as unzipped:
            yield cast("IO[bytes]", unzipped)
        return
    with zipfile.ZipFile(path) as archive:
        members = [
            member
            for member in archive.infolist()
            if not member.is_dir() and not member.filename.startswith("__MACOSX/")
        ]
        if len(members) != 1:
            names = ", ".join(member.filename for member in members[:5]) or "none"
            raise SourceError(
                f"{path} must hold exactly one file to be read as data, not {len(members)} "
                f"({names}); unpack it and give the directory"
            )
        with archive.open(members[0]) as content:
            yield content


def _cache_directory() -> Path:
    """Return ``$XDG_CACHE_HOME/agentic_ray/sources``, or a temporary directory if not writable."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    own_temporary = Path(tempfile.gettempdir()) / f"agentic_ray-{os.getuid()}"
    for base in (home / "agentic_ray", own_temporary):
        directory = base / "sources"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:  # a read-only or missing home: the next place will do
            continue
        # In a shared temporary directory somebody else could have made it first.
        if os.access(directory, os.W_OK) and directory.stat().st_uid == os.getuid():
            return directory
    raise SourceError(
        f"no directory to unpack into: neither {home} nor {own_temporary} can be used"
    )


def sync(path: str | os.PathLike[str]) -> None:
    """Have the kernel write a file, or the entries of a folder, through to the disk, so that a
    crash loses nothing of it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
