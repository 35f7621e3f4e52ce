"""Folders that Ray's sessions left on this machine when their processes were gone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil


def ended_sessions(older_than_seconds: float = 0.0) -> list[Path]:
    """Return session folders of this user's in Ray's own folder that no running process names.

    Parameters
    ----------
    older_than_seconds : float
        Age of the last change: only folders in which nothing was made or removed for so long. (A
        session that starts has a folder before it has processes.)
    """
    root = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray"
    try:
        folders = [path for path in root.glob("session_2*") if path.is_dir()]
    except OSError:
        return []
    in_use = _command_lines()
    before = time.time() - older_than_seconds
    ended = []
    for folder in folders:
        try:
            status = folder.lstat()
        except OSError:
            continue  # it is removed just now
        if status.st_uid == os.getuid() and status.st_mtime <= before and folder.name not in in_use:
            ended.append(folder)
    return ended


def size_bytes(folder: Path) -> int:
    """Sum the bytes of all files in the folder; a file that cannot be read counts as nothing."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size
            except OSError:
                continue
    return total


def _command_lines() -> str:
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return "\n".join(lines)
