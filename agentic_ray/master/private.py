"""Files and folders that are this user's alone: made so, and refused where they are not.

What a master keeps holds parameters and results of its users, and some of it is unpickled when it
is read again. So nobody else may read it, and nobody else may have put it there.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import BinaryIO, cast

from agentic_ray.errors import JournalError

_logger = logging.getLogger("agentic_ray")


def private_folder(folder: Path) -> None:
    """Make a folder that this user alone can enter, or make sure of one that is there.

    Raises
    ------
    JournalError
        It is a link, no folder, or another user's; or it cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise JournalError(f"{folder} is not a folder; nothing is kept there")
        _check_owner(folder, found)
        if found.st_mode & 0o077:
            folder.chmod(0o700)
    except FileExistsError:
        raise JournalError(f"{folder} is not a folder; nothing is kept there") from None
    except OSError as error:
        if isinstance(error, JournalError):
            raise
        raise JournalError(f"{folder}: {error.strerror or error}") from error


def private_file(file: Path) -> None:
    """Make a file that this user alone can read, or make sure of one that is there.

    Raises
    ------
    JournalError
        It is no plain file, or another user's; or it cannot be made.
    """
    try:
        try:
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            check_file(file)
        if file.stat().st_mode & 0o077:
            file.chmod(0o600)
    except OSError as error:
        if isinstance(error, JournalError):
            raise
        raise JournalError(f"{file}: {error.strerror or error}") from error


def check_file(file: Path) -> None:
    """Refuse a file that is no plain file, or that is another user's; it may be missing.

    Raises
    ------
    JournalError
    """
    try:
        found = file.stat()
    except FileNotFoundError:
        if file.is_symlink():
            raise JournalError(f"{file} is a link to nowhere") from None
        return
    if not stat.S_ISREG(found.st_mode):
        raise JournalError(f"{file} is not a file that a journal can be in")
    _check_owner(file, found)
    if file.is_symlink():
        _check_owner(file, file.lstat())


def warn_of_place(folder: Path) -> None:
    """Warn of a folder in which any user may replace the files of any other.

    Not refused: volumes of containers are such folders, and there is one user only. Files that
    another user has put there are refused in any case.
    """
    mode = folder.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        _logger.warning(
            "every user of this machine may delete and replace files in %s: choose another folder "
            "for the journal, or `chmod o-w` it, if there are others",
            folder,
        )


def open_private(file: Path, mode: str) -> BinaryIO:
    """Open a file for writing (``"wb"``, ``"xb"`` or ``"ab"``); a new one is this user's alone."""

    def opener(path: str, flags: int) -> int:
        return os.open(path, flags | os.O_NOFOLLOW, 0o600)

    return cast(BinaryIO, open(file, mode, opener=opener))


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise JournalError(
            f"{path} belongs to user {found.st_uid}, not to this one ({os.geteuid()}): it could "
            "hold anything, so it is not used; choose another place"
        )
