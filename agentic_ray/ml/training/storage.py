"""Where a training's checkpoints are: a folder, or a URL by fsspec."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agentic_ray.errors import CheckpointFolderError, InvalidArgumentError
from agentic_ray.runtime.training import Storage


def storage_at(url: Any) -> Storage:
    """Return the storage for a path or URL; its folder is made.

    Raises
    ------
    CheckpointFolderError
        It cannot be made, or not be written to.
    InvalidArgumentError
        It names no folder.
    """
    text = os.fspath(url)
    scheme = urlsplit(text).scheme
    if scheme in ("", "file"):
        return _local(urlsplit(text).path if scheme else text)
    return _remote(text)


def _local(text: str) -> Storage:
    path = Path(text).expanduser().absolute()
    _check_name(path.name, text)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise CheckpointFolderError(f"checkpoints cannot be written to {path}: {error}") from error
    return Storage(str(path.parent), path.name)


def _remote(url: str) -> Storage:
    try:
        # optional: the extra io
        import fsspec
        from pyarrow import fs
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"checkpoints at {url} need {error.name}: pip install 'agentic-ray[io]'",
            name=error.name,
        ) from error
    try:
        files, path = fsspec.core.url_to_fs(url)
        path = path.rstrip("/")
        parent, _, name = path.rpartition("/")
        _check_name(name, url)
        files.makedirs(path, exist_ok=True)
        files.pipe_file(f"{path}/.written", b"")
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, InvalidArgumentError):
            raise
        raise CheckpointFolderError(f"checkpoints cannot be written to {url}: {error}") from error
    return Storage(parent, name, fs.PyFileSystem(fs.FSSpecHandler(files)))


def _check_name(name: str, text: str) -> None:
    if not name:
        raise InvalidArgumentError(f"checkpoint must name a folder, not {text!r}")


def fetched(storage: Storage, checkpoint: str) -> tempfile.TemporaryDirectory[str]:
    """Copy the files of a checkpoint, a path of the storage, into a folder of this machine."""
    from pyarrow import fs  # pyarrow takes long to import

    folder = tempfile.TemporaryDirectory(prefix="agentic-ray-states-")
    source = fs.LocalFileSystem() if storage.files is None else storage.files
    fs.copy_files(checkpoint, folder.name, source_filesystem=source)
    return folder
