"""Checkpoints of a fit: the statistics of its passes, as they were made.

A fit is a function of its data, its parameters and the statistics of its passes. So a fit that is
begun again with the same data and parameters asks for the same passes; those that are kept are
read, and the rest is made. It ends with the same bits as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import scipy.sparse as sp

from agentic_ray.errors import InvalidArgumentError, SourceError
from agentic_ray.graph import content_key

_FORMAT = 1


class Folder(Protocol):
    """Where files of a checkpoint are."""

    def read(self, name: str) -> bytes | None: ...
    def write(self, name: str, content: bytes) -> None: ...


class LocalFolder:
    """A folder of this machine. Files appear whole or not at all."""

    def __init__(self, path: str) -> None:
        self._path = path
        os.makedirs(path, exist_ok=True)

    def read(self, name: str) -> bytes | None:
        try:
            with open(os.path.join(self._path, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        path = os.path.join(self._path, name)
        with open(f"{path}.new", "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.new", path)


class RemoteFolder:
    """A folder at a URL, by fsspec."""

    def __init__(self, url: str) -> None:
        import fsspec

        self._files, self._path = fsspec.core.url_to_fs(url)
        self._files.makedirs(self._path, exist_ok=True)

    def read(self, name: str) -> bytes | None:
        try:
            content: bytes = self._files.cat_file(f"{self._path}/{name}")
        except FileNotFoundError:
            return None
        return content

    def write(self, name: str, content: bytes) -> None:
        self._files.pipe_file(f"{self._path}/{name}", content)


def folder_at(url: Any) -> Folder:
    """The folder at a path or URL."""
    text = os.fspath(url)
    scheme = urlsplit(text).scheme
    if scheme in ("", "file"):
        return LocalFolder(urlsplit(text).path if scheme else text)
    return RemoteFolder(text)


class Log:
    """The statistics of the passes of one fit.

    Parameters
    ----------
    url : path or URL of a folder
    fit : str
        Names the estimator, its parameters and its data.

    Raises
    ------
    InvalidArgumentError
        The checkpoint is of another fit.
    """

    def __init__(self, url: Any, fit: str) -> None:
        self._folder = folder_at(url)
        self._number = 0
        self.replayed = 0
        head = {"format": _FORMAT, "fit": fit}
        known = self._folder.read("fit.json")
        if known is None:
            self._folder.write("fit.json", json.dumps(head).encode())
        elif json.loads(known) != head:
            raise InvalidArgumentError(
                f"{url} holds the checkpoint of another fit (other data, parameters, estimator or "
                "version); give an empty folder"
            )

    def kept(self, name: str, params: Any, compute: Callable[[], Any]) -> Any:
        """The statistics of the next pass: those that are kept, or ``compute()``."""
        file = f"{self._number:06d}.npz"
        self._number += 1
        digest = content_key(name, params)
        found = self._folder.read(file)
        if found is not None:
            kept_digest, value = _unpacked(found, file)
            if kept_digest == digest:
                self.replayed += 1
                return value
        value = compute()
        self._folder.write(file, _packed(digest, value))
        return value


# --- what data are ---------------------------------------------------------------------------


def fingerprint(x: Any, y: Any, w: Any) -> str:
    """A digest of the values of a chunk."""
    digest = hashlib.blake2b(digest_size=16)
    for block in (x, y, w):
        for part in _plain_parts(block):
            digest.update(part)
    return digest.hexdigest()


def both_fingerprints(left: str, right: str) -> str:
    """Return the fingerprint of two lots of rows, from the fingerprints of each."""
    return hashlib.blake2b(f"{left} {right}".encode(), digest_size=16).hexdigest()


def _plain_parts(block: Any) -> Iterator[bytes]:
    """The bytes that tell a block from others."""
    if sp.issparse(block):
        rows = block.tocsr()
        yield f"sparse {block.shape}".encode()
        for part in (rows.indptr, rows.indices, rows.data):
            yield from _plain_parts(part)
    elif hasattr(block, "iloc"):
        yield f"table {list(block.columns)} {list(map(str, block.dtypes))}".encode()
        for at in range(block.shape[1]):
            yield from _plain_parts(block.iloc[:, at].to_numpy())
    elif block is None:
        yield b"none"
    else:
        array = np.asarray(block)
        yield f"{array.dtype.str} {array.shape}".encode()
        if array.dtype.hasobject:
            yield repr(array.tolist()).encode("utf-8", "surrogatepass")
        else:
            yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).tobytes()


# --- files -----------------------------------------------------------------------------------


def _packed(digest: str, value: Any) -> bytes:
    arrays: list[np.ndarray[Any, Any]] = []
    shape = _taken(value, arrays)
    file = io.BytesIO()
    head = np.frombuffer(json.dumps({"pass": digest, "shape": shape}).encode(), np.uint8)
    np.savez(file, head=head, **{f"a{i}": array for i, array in enumerate(arrays)})  # type: ignore[arg-type]
    return file.getvalue()


def _unpacked(content: bytes, name: str) -> tuple[str, Any]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            head = json.loads(bytes(found["head"]))
            arrays = [found[f"a{i}"] for i in range(len(found.files) - 1)]
    except Exception as error:
        raise SourceError(f"{name} of the checkpoint is damaged: {error}") from error
    return head["pass"], _put_in(head["shape"], arrays)


def _taken(value: Any, arrays: list[np.ndarray[Any, Any]]) -> Any:
    """The structure of statistics as JSON; their arrays go to a list."""
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_taken(part, arrays) for part in value]}
    if isinstance(value, dict):
        return {"dict": [[_taken(k, arrays), _taken(v, arrays)] for k, v in value.items()]}
    if isinstance(value, np.ndarray) and value.dtype == object:
        return {"objects": [value.shape, [_taken(part, arrays) for part in value.ravel()]]}
    if isinstance(value, np.ndarray | np.generic):
        arrays.append(np.asarray(value))
        return {"array" if isinstance(value, np.ndarray) else "number": len(arrays) - 1}
    if value is None or isinstance(value, bool | int | str):
        return {"is": value}
    if isinstance(value, float):
        return {"float": value.hex()}
    raise TypeError(f"a pass gives a {type(value).__name__}, which a checkpoint cannot keep")


def _put_in(shape: Any, arrays: list[Any]) -> Any:
    ((kind, held),) = shape.items()
    if kind in ("tuple", "list"):
        parts = [_put_in(part, arrays) for part in held]
        return tuple(parts) if kind == "tuple" else parts
    if kind == "dict":
        return {_put_in(k, arrays): _put_in(v, arrays) for k, v in held}
    if kind == "objects":
        found = np.empty(len(held[1]), object)
        found[:] = [_put_in(part, arrays) for part in held[1]]
        return found.reshape(held[0])
    if kind == "array":
        return arrays[held]
    if kind == "number":
        return arrays[held][()]
    return float.fromhex(held) if kind == "float" else held
