"""Compiled kernels on disk: one file each in a folder of the user's own.

Bytes only; what is in them is `kernel_build`'s business. They are code, so nothing is read that
another user could have written. Several processes may use the folder at once: files come into
being whole, and one that another process removes is merely missing. The store is never a reason
to fail: what cannot be read is made anew, what cannot be written is not kept.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

MOST_FILES = 256
MOST_BYTES = 64 << 20
MOST_UNUSED_SECONDS = 30 * 24 * 3600.0
_STALE_SECONDS = 3600.0
"""A file that is still being written after so long belongs to a process that is gone."""
_MAGIC = b"agentic_ray kernel 1\n"
_DIGEST_BYTES = 32
_SUFFIX, _PARTIAL = ".kernel", ".partial"


class KernelStore:
    """The files in ``folder``, which is made when the first is written.

    Parameters
    ----------
    folder : Path
    warn : callable
        Told why something cannot be read or written.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self._warn = warn

    def read(self, name: str) -> bytes | None:
        """Return the bytes written under ``name``; None if nothing there can be trusted."""
        path = self.folder / f"{name}{_SUFFIX}"
        try:
            if not self._is_ours(os.stat(self.folder)):
                return None
            # Not through a link, which may lead to another user's file.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            with open(descriptor, "rb") as file:
                if not self._is_ours(os.fstat(descriptor)):
                    return None
                content = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(f"{path} cannot be read: {error}")
            return None
        at = len(_MAGIC) + _DIGEST_BYTES
        if content[:at] != _MAGIC + blake3(content[at:]).digest(length=_DIGEST_BYTES):
            self.remove(name)
            return None
        with suppress(OSError):  # somebody else may have removed it
            os.utime(path)
        return content[at:]

    def write(self, name: str, content: bytes) -> None:
        """Keep ``content`` under ``name``, and remove what was not used for longest."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            info = os.stat(self.folder)
            if not self._is_ours(info):
                return
            if info.st_mode & 0o077:
                self.folder.chmod(0o700)
            descriptor, partial = tempfile.mkstemp(_PARTIAL, name, self.folder)
            try:
                with open(descriptor, "wb") as file:
                    file.write(_MAGIC + blake3(content).digest(length=_DIGEST_BYTES) + content)
                os.replace(partial, self.folder / f"{name}{_SUFFIX}")
            except BaseException:
                os.unlink(partial)
                raise
            self._prune()
        except OSError as error:
            self._warn(f"{self.folder} cannot be written: {error}")

    def remove(self, name: str) -> None:
        """Forget what is under ``name``."""
        with suppress(OSError):  # nothing else is known of it than that it is of no use
            os.unlink(self.folder / f"{name}{_SUFFIX}")

    def _is_ours(self, info: os.stat_result) -> bool:
        """Whether nobody but this user can have written what ``info`` is about."""
        if not hasattr(os, "geteuid"):
            return True  # Windows, whose folders of users are closed to others
        own = info.st_uid == os.geteuid()
        if own and (stat.S_ISDIR(info.st_mode) or not info.st_mode & 0o022):
            return True
        self._warn(f"{self.folder} is not used, because others may write there")
        return False

    def _prune(self) -> None:
        now = time.time()
        kept = size = 0
        files: list[tuple[os.stat_result, os.DirEntry[str]]] = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process was quicker
                    files.append((entry.stat(follow_symlinks=False), entry))
        for info, entry in sorted(files, key=lambda pair: -pair[0].st_mtime):
            age = now - info.st_mtime
            if entry.name.endswith(_SUFFIX):
                kept += 1
                size += info.st_size
                gone = kept > MOST_FILES or size > MOST_BYTES or age > MOST_UNUSED_SECONDS
            else:
                gone = entry.name.endswith(_PARTIAL) and age > _STALE_SECONDS
            if gone:
                with suppress(OSError):
                    os.unlink(entry.path)
