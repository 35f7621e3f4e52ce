"""Results and other texts kept beside the journal: written whole or not at all, and checked.

A reference holds the checksum, so that what is read is what was written or an error.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import uuid
from pathlib import Path
from typing import Any, Final, Protocol

from agentic_ray.errors import InvalidArgumentError, JournalError, ResultCorruptError
from agentic_ray.master.private import open_private, private_folder


class ResultStore(Protocol):
    """Named blobs."""

    def put(self, name: str, content: bytes) -> str:
        """Keep ``content``; the reference to read it by. Durable when this returns."""
        ...

    def get(self, reference: str) -> bytes:
        """Return the bytes kept under this name.

        Raises
        ------
        ResultCorruptError
            It is missing, or its checksum differs.
        """
        ...

    def delete(self, reference: str) -> None:
        """Keep it no longer; nothing happens if it is gone."""
        ...

    def references(self) -> list[str]:
        """All there are, oldest first."""
        ...


def reference_of(name: str, content: bytes) -> str:
    """The reference of a blob: its name and its SHA-256."""
    return f"{name}.{hashlib.sha256(content).hexdigest()}"


def verify(reference: str, content: bytes) -> bytes:
    """``content`` if it is what the reference says.

    Raises
    ------
    ResultCorruptError
        It is not.
    """
    if hashlib.sha256(content).hexdigest() != reference.rpartition(".")[2]:
        raise ResultCorruptError(f"stored result {reference} is damaged: its checksum differs")
    return content


_REMEMBERED: Final = 10_000


class MemoryResults:
    """Blobs in this process."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def put(self, name: str, content: bytes) -> str:
        reference = reference_of(name, content)
        self._blobs[reference] = content
        return reference

    def get(self, reference: str) -> bytes:
        try:
            return verify(reference, self._blobs[reference])
        except KeyError:
            raise ResultCorruptError(f"stored result {reference} is missing") from None

    def delete(self, reference: str) -> None:
        self._blobs.pop(reference, None)

    def references(self) -> list[str]:
        return list(self._blobs)


class DirectoryResults:
    """Blobs as files of a directory.

    Parameters
    ----------
    directory : path
        Made on first use, for this user alone. One that is there must be this user's.
    sync : bool
        Survive a power cut; not needed where a blob that is damaged is made anew.

    Raises
    ------
    JournalError
        The directory is not this user's alone.
    """

    def __init__(self, directory: str | Path, *, sync: bool = True) -> None:
        self._directory = Path(directory)
        self._sync = sync
        self._verified: set[str] = set()
        self._checked = os.path.lexists(self._directory)
        if self._checked:
            private_folder(self._directory)

    def put(self, name: str, content: bytes) -> str:
        reference = reference_of(name, content)
        temporary = self._directory / f".{uuid.uuid4().hex}.tmp"
        try:
            if not self._checked:
                private_folder(self._directory)
                self._checked = True
            try:
                with open_private(temporary, "xb") as file:
                    file.write(content)
                    if self._sync:
                        file.flush()
                        os.fsync(file.fileno())
                temporary.rename(self._directory / reference)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            if self._sync:
                self._sync_directory()
        except JournalError:
            raise
        except OSError as error:
            self._checked = False  # it may have been deleted
            raise JournalError(
                f"results in {self._directory}: {error.strerror or error}"
            ) from error
        return reference

    def get(self, reference: str) -> bytes:
        try:
            content = (self._directory / reference).read_bytes()
        except OSError as error:
            raise ResultCorruptError(
                f"stored result {reference} cannot be read: {error.strerror or error}"
            ) from error
        return verify(reference, content)

    def verified(self, reference: str) -> Path:
        """The file of a blob, whose content has been compared with its checksum.

        Raises
        ------
        ResultCorruptError
            It is missing, or differs.
        """
        path = self._directory / reference
        if reference in self._verified:
            return path
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ResultCorruptError(
                f"stored result {reference} cannot be read: {error.strerror or error}"
            ) from error
        if found != reference.rpartition(".")[2]:
            raise ResultCorruptError(f"stored result {reference} is damaged: its checksum differs")
        if len(self._verified) >= _REMEMBERED:
            self._verified.clear()
        self._verified.add(reference)
        return path

    def delete(self, reference: str) -> None:
        (self._directory / reference).unlink(missing_ok=True)

    def references(self) -> list[str]:
        if not self._directory.is_dir():
            return []
        found = [path for path in self._directory.iterdir() if not path.name.startswith(".")]
        return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)]

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class RemoteResults:
    """Blobs under an fsspec URL, e.g. ``s3://bucket/results``; needs fsspec and its driver.

    Object stores show a whole object or none; elsewhere the rename does that.
    """

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise InvalidArgumentError(
                f"results at {url} need fsspec: pip install fsspec"
            ) from error
        try:
            self._files, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise InvalidArgumentError(f"results at {url}: {error}") from error

    def put(self, name: str, content: bytes) -> str:
        reference = reference_of(name, content)
        temporary = f"{self._root}/.{uuid.uuid4().hex}.tmp"
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(temporary, content)
            self._files.mv(temporary, f"{self._root}/{reference}")
        except OSError as error:
            raise JournalError(f"results in {self._root}: {error}") from error
        return reference

    def get(self, reference: str) -> bytes:
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{reference}")
        except OSError as error:
            raise ResultCorruptError(f"stored result {reference} cannot be read") from error
        return verify(reference, content)

    def delete(self, reference: str) -> None:
        try:
            self._files.rm_file(f"{self._root}/{reference}")
        except FileNotFoundError:
            return

    def references(self) -> list[str]:
        if not self._files.exists(self._root):
            return []
        names: list[Any] = self._files.ls(self._root, detail=False)
        found = [str(name).rpartition("/")[2] for name in names]
        return sorted(name for name in found if not name.startswith("."))


class SignedResults:
    """Blobs with a signature before each, so that only who has the key can have made them.

    For blobs that are found by looking what is there, not by a reference that the journal has.

    Parameters
    ----------
    results : ResultStore
        Where they are.
    key : bytes
        Kept with the journal.
    """

    def __init__(self, results: ResultStore, key: bytes) -> None:
        self._results = results
        self._key = key

    def put(self, name: str, content: bytes) -> str:
        return self._results.put(name, self._signature(name, content) + content)

    def get(self, reference: str) -> bytes:
        signed = self._results.get(reference)
        content = signed[_SIGNATURE_BYTES:]
        expected = self._signature(reference.rpartition(".")[0], content)
        if not hmac.compare_digest(expected, signed[:_SIGNATURE_BYTES]):
            raise ResultCorruptError(f"stored result {reference} was not written with this journal")
        return content

    def delete(self, reference: str) -> None:
        self._results.delete(reference)

    def references(self) -> list[str]:
        return self._results.references()

    def _signature(self, name: str, content: bytes) -> bytes:
        made = hmac.new(self._key, name.encode("utf-8", "surrogatepass") + b"\0", "sha256")
        made.update(content)
        return made.digest()


_SIGNATURE_BYTES: Final = hashlib.sha256().digest_size


def open_results(where: str | Path) -> ResultStore:
    """The result store at a directory or an fsspec URL."""
    if "://" in str(where):
        return RemoteResults(str(where))
    return DirectoryResults(where)
