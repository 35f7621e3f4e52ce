"""Where windows go: a folder of files, or a function.

A sink may be given the windows of one epoch twice, after a crash: they are the same then. A folder
has one file for each epoch, so the second time changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.stream.checkpoints import write_whole


class Sink(Protocol):
    """Takes the windows of an epoch."""

    def put(self, windows: pa.Table, epoch: int) -> None:
        """Take them; the same once more must change nothing."""
        ...

    def begin(self, epoch: int) -> None:
        """Be told of the last epoch that came out before the stream goes on (0: none)."""
        ...


@dataclass(frozen=True)
class FolderSink:
    """Writes each epoch's windows as a Parquet file, in one step."""

    folder: Path

    def begin(self, epoch: int) -> None:
        """Make the folder; files of epochs that are to come must not be there.

        Raises
        ------
        InvalidArgumentError
            There is the output of another run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        later = sorted(
            entry.name for entry in self.folder.glob("windows-*.parquet") if _epoch(entry) > epoch
        )
        if later:
            raise InvalidArgumentError(
                f"{self.folder} has {later[0]}, which this stream has not written: it goes on "
                f"after epoch {epoch}; use another folder, or the checkpoint of that stream"
            )

    def put(self, windows: pa.Table, epoch: int) -> None:
        """Write the file of an epoch."""
        sink = pa.BufferOutputStream()
        pq.write_table(windows, sink)
        write_whole(self.folder / f"windows-{epoch:010d}.parquet", bytes(sink.getvalue()))


def _epoch(path: Path) -> int:
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


@dataclass(frozen=True)
class FunctionSink:
    """Calls ``function(windows, epoch)``."""

    function: Callable[[pa.Table, int], Any]

    def begin(self, epoch: int) -> None:
        """Do nothing."""

    def put(self, windows: pa.Table, epoch: int) -> None:
        """Call the function."""
        self.function(windows, epoch)


def sink_of(target: Any) -> Sink:
    """Return the sink that a value stands for.

    Raises
    ------
    InvalidTypeError
        It stands for none.
    """
    if isinstance(target, str | os.PathLike):
        return FolderSink(Path(os.path.abspath(os.fspath(target))))
    if callable(target):
        return FunctionSink(target)
    raise InvalidTypeError(f"a sink is a folder or a function, not {type(target).__name__}")
