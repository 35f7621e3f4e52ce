"""Errors of object stores and other file systems far away, told apart from damaged files.

A damaged file can be left out (``on_error="skip"``). A store that cannot be reached, or refuses, is
always an error: leaving its files out would give an answer of only some rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow.fs as pafs

from agentic_ray.errors import AgenticRayError, SourceError, StorageError

_PACKAGES = frozenset(
    {
        "adlfs",
        "aiobotocore",
        "aiohttp",
        "azure",
        "botocore",
        "gcsfs",
        "google",
        "requests",
        "s3fs",
        "urllib3",
    }
)
"""Packages whose exceptions are about the store, never about the content of a file."""
_MARKS = ("AWS Error", "google::cloud", "Azure")
"""What pyarrow's own errors of object stores have in their texts."""


@contextmanager
def reaching(filesystem: Any, path: str) -> Iterator[None]:
    """Turn an error of the store into a `StorageError` that names the path; leave all others.

    Parameters
    ----------
    filesystem : pyarrow.fs.FileSystem or None
        None, like a local one, leaves all errors.
    """
    if filesystem is None or isinstance(filesystem, pafs.LocalFileSystem):
        yield
        return
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        own = isinstance(error, AgenticRayError)
        cause = error.__cause__ if isinstance(error, SourceError) else None if own else error
        if cause is None or not _is_of_store(cause, filesystem, path):
            raise
        raise store_error(path, cause) from cause


def store_error(path: str, cause: BaseException) -> StorageError:
    """Return the error for a path that the store does not serve."""
    text = str(cause) or type(cause).__name__
    return StorageError(f"{path}: the store cannot be reached, or refuses: {text}")


def _is_of_store(error: BaseException, filesystem: Any, path: str) -> bool:
    if isinstance(error, ConnectionError | TimeoutError | PermissionError):
        return True
    if type(error).__module__.partition(".")[0] in _PACKAGES:
        return True
    if any(mark in str(error) for mark in _MARKS):
        return True
    if not isinstance(error, OSError):
        return False
    try:  # whether the store answers at all
        filesystem.get_file_info(path)
    except Exception:  # of whatever package the file system is
        return True
    return False


def is_far(filesystem: Any) -> bool:
    """Whether files are elsewhere than in the local file system."""
    return filesystem is not None and not isinstance(filesystem, pafs.LocalFileSystem)
