"""Writes a table in an object store, which cannot rename a folder, so that readers see all or none.

Attempts write below ``_writing-…``, which readers pass over. The files of those that count are then
moved, by the store, beside the files that are there, under names that no other job uses. The
manifest is written last, in one step: from then on readers take the files that it names. Where
there is none yet, one that says "pending" keeps readers away from the first files.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from agentic_ray.errors import SourceError, TargetExistsError
from agentic_ray.tables.files import MANIFEST, absent_bucket
from agentic_ray.tables.manifests import Written, WrittenFile, empty_file
from agentic_ray.tables.stores import reaching

_MOVES = 8
"""Files that are moved beside each other: a move is a request or two, and no data passes here."""
_STAGING = "_writing-"

Parts = Sequence[tuple[str, tuple[WrittenFile, ...], bytes]]


@dataclass(frozen=True)
class Store:
    """A folder of an object store that a job writes.

    Parameters
    ----------
    filesystem : pyarrow.fs.FileSystem
    folder : str
        Path in it.
    mode : {"error", "overwrite"}
    job : str
    """

    filesystem: Any
    folder: str
    mode: str
    job: str

    def write(
        self, format: str, partition_by: tuple[str, ...], parts: Callable[[str], Parts]
    ) -> Written:
        """Have ``parts`` write below a folder that it is given, and make that the table.

        Raises
        ------
        TargetExistsError
            There are files, which may not be replaced; or another job has written meanwhile.
        StorageError
            The store cannot be reached, or refuses. What was there before is still what readers
            get.
        """
        with reaching(self.filesystem, self.folder):
            before = self._before()
            number = uuid.uuid4().hex
            staging = f"{self.folder}/{_STAGING}{number}"
            moved: list[str] = []
            pending = before is None
            try:
                found = parts(staging)
                if pending:
                    before = self._put_manifest(self._pending(number))
                written = self._moved(found, number, format, partition_by, moved)
                if self._manifest() != before:
                    raise TargetExistsError(f"{self.folder} was written by another job meanwhile")
                self._put_manifest(written.json())
            except BaseException:
                self._try_to_delete(moved)
                if pending and before is not None:
                    self._try_to_delete_pending(before)
                self._try_to_delete_folder(staging)
                raise
            kept = {f"{self.folder}/{file.path}" for file in written.files}
            self._try_to_delete([path for path in self._files() if path not in kept])
            self._try_to_delete_folder(staging)
            return written

    # --- what is there -------------------------------------------------------------------

    def _files(self) -> list[str]:
        """Return the files of tables that are there, and foreign ones, without the manifest."""
        selector = pafs.FileSelector(self.folder, allow_not_found=True, recursive=True)
        start = len(self.folder) + 1
        return [
            info.path
            for info in self.filesystem.get_file_info(selector)
            if info.type == pafs.FileType.File
            and info.path[start:] != MANIFEST
            and not info.path[start:].startswith(_STAGING)
            and not info.path.endswith("/")
        ]

    def _manifest(self) -> bytes | None:
        path = f"{self.folder}/{MANIFEST}"
        if self.filesystem.get_file_info(path).type == pafs.FileType.NotFound:
            return None
        with self.filesystem.open_input_stream(path) as stream:
            return bytes(stream.read())

    def _before(self) -> bytes | None:
        """Return the manifest that is there, if the folder may be written."""
        missing = absent_bucket(self.filesystem, self.folder)
        if missing:
            raise FileNotFoundError(f"{self.folder} cannot be written: {missing}")
        before = self._manifest()
        if before is None:
            if self._files():
                raise TargetExistsError(
                    f"{self.folder} was not written by this package (it has no {MANIFEST}); move "
                    "it away"
                )
        elif self.mode == "error":
            raise TargetExistsError(f"{self.folder} is there; mode='overwrite' replaces all of it")
        return before

    # --- what is put there ---------------------------------------------------------------

    def _pending(self, number: str) -> bytes:
        return (json.dumps({"pending": True, "job": self.job, "attempt": number}) + "\n").encode()

    def _put_manifest(self, content: bytes) -> bytes:
        with self.filesystem.open_output_stream(f"{self.folder}/{MANIFEST}") as stream:
            stream.write(content)
        return content

    def _moved(
        self,
        parts: Parts,
        number: str,
        format: str,
        partition_by: tuple[str, ...],
        moved: list[str],
    ) -> Written:
        """Move the files of all parts beside those that are there; return the manifest."""
        schema = pa.ipc.open_stream(parts[0][2]).schema
        moves = [
            (f"{folder}/{file.path}", replace(file, path=_named(file.path, number)))
            for folder, files, _ in parts
            for file in files
        ]
        targets = [f"{self.folder}/{file.path}" for _, file in moves]
        for above in sorted({path.rpartition("/")[0] for path in targets} - {self.folder}):
            self.filesystem.create_dir(above, recursive=True)
        moved += targets
        with ThreadPoolExecutor(_MOVES) as pool:
            sources = [source for source, _ in moves]
            for _ in pool.map(self.filesystem.move, sources, targets):
                pass
        for info, (_, file) in zip(
            self.filesystem.get_file_info(targets) if targets else [], moves, strict=True
        ):
            if info.size != file.bytes:
                raise SourceError(f"{info.path} has {info.size} bytes, not {file.bytes} as written")
        files = [file for _, file in moves]
        if not files:  # no rows
            name, content = empty_file(schema, format)
            only = WrittenFile(_named(name, number), 0, len(content))
            moved.append(f"{self.folder}/{only.path}")
            with self.filesystem.open_output_stream(moved[-1]) as stream:
                stream.write(content)
            files = [only]
        return Written.now(self.folder, self.job, format, schema, partition_by, files)

    # --- what is left ----------------------------------------------------------------------
    # (Readers pass over all of it: where the store does not answer, it may stay.)

    def _try_to_delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            try:
                self.filesystem.delete_file(path)
            except FileNotFoundError:
                continue
            except Exception as error:
                if not _is_away(error):
                    raise
                return

    def _try_to_delete_pending(self, content: bytes) -> None:
        try:
            if self._manifest() == content:
                self.filesystem.delete_file(f"{self.folder}/{MANIFEST}")
        except Exception as error:
            if not _is_away(error):
                raise

    def _try_to_delete_folder(self, path: str) -> None:
        try:
            self.filesystem.delete_dir(path)
        except Exception as error:
            if not _is_away(error):
                raise


def _is_away(error: Exception) -> bool:
    """Whether the store does not answer, or has no such thing; not an error of this program."""
    return isinstance(error, OSError) or type(error).__module__.startswith(("botocore", "aiohttp"))


def _named(path: str, number: str) -> str:
    """Return the path of a file in the folder, with a name that no other job uses."""
    above, slash, name = path.rpartition("/")
    return f"{above}{slash}part-{number[:12]}-{name.removeprefix('part-')}"
