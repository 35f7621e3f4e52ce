"""A stream's checkpoint: one file, replaced in one step, with a checksum.

It holds the position of the source, the open windows, and the windows that came out last. So what
came out last can be given to the sink once more, the same, if it is not known whether it arrived.
"""

from __future__ import annotations

import fcntl
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
from blake3 import blake3

from agentic_ray.errors import CheckpointError
from agentic_ray.sources._files import sync
from agentic_ray.stream.sources import Position
from agentic_ray.stream.windows import Open

_MAGIC = b"agentic_ray stream 1\n"
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that a stream needs to go on.

    Parameters
    ----------
    description : str
        Digest of the rules, so that another stream is told from this one.
    position : Position or None
    open : Open
    epoch : int
        Number of times that windows came out.
    output : pyarrow.Table or None
        The windows of that epoch.
    skipped : int
        Lines that could not be parsed.
    schema : pyarrow.Schema or None
        Columns of the rows that came.
    """

    description: str
    position: Position | None
    open: Open
    epoch: int = 0
    output: pa.Table | None = None
    skipped: int = 0
    schema: pa.Schema | None = None


class Store:
    """The folder of a stream's checkpoint; one process at a time has it.

    Raises
    ------
    CheckpointError
        Another process has it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(os.path.abspath(os.fspath(folder)))
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = self._folder / "checkpoint"
        self._lock = open(self._folder / "lock", "a")  # noqa: SIM115  # held until the end
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise CheckpointError(f"another stream is using the checkpoint {folder}") from error

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.close()

    def load(self, description: str) -> Checkpoint | None:
        """Return the last checkpoint, or None before the first.

        Raises
        ------
        CheckpointError
            It is damaged, belongs to another user, or is that of another stream.
        """
        try:
            with open(self._file, "rb") as file:
                owner = os.fstat(file.fileno()).st_uid
                content = file.read()
        except FileNotFoundError:
            return None
        # (It is unpickled: what another user has written could run anything here.)
        if owner not in (os.getuid(), 0):
            raise CheckpointError(f"{self._file} belongs to another user")
        head = len(_MAGIC) + _DIGEST_BYTES
        body = content[head:]
        if content[: len(_MAGIC)] != _MAGIC or blake3(body).digest() != content[len(_MAGIC) : head]:
            raise CheckpointError(f"{self._file} is damaged; remove it to begin anew")
        found: Any = pickle.loads(body)
        assert isinstance(found, Checkpoint), "its checksum is right"
        if found.description != description:
            raise CheckpointError(
                f"{self._file} is of a stream with other steps, windows, keys or aggregates; use "
                "another folder, or remove it to begin anew"
            )
        return found

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint in one step, once it is on the disk."""
        body = pickle.dumps(checkpoint, protocol=5)
        write_whole(self._file, _MAGIC + blake3(body).digest() + body)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that there is, whatever happens, the old one or the new one."""
    partial = path.with_name(f".{path.name}.writing")
    with open(partial, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync(path.parent)
