"""Uploaded files as parameters of named workloads, and how their content is read, in blocks.

A block is a NumPy array, an Arrow table or a list of lines. Blocks depend on the file alone, so a
reduction over them has the same bits each time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from agentic_ray.errors import InvalidParametersError

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS: Final = ("npy", "arrow", "parquet", "csv", "txt")
FOLDER: Final = "AGENTIC_RAY_DATA"
"""The variable of the environment with the folder of uploaded files."""

_BLOCK_ELEMENTS: Final = 1 << 16
_BLOCK_LINES: Final = 10_000
_OBJECTS: Final = "O"


@with_config(ConfigDict(extra="forbid"))
class UploadParams(TypedDict):
    """A file that was uploaded. Give ``{"ref": NAME}``; the service adds the rest."""

    ref: str
    format: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    owner: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was uploaded, as it was when the job was submitted."""

    name: str
    format: str
    sha256: str
    owner: str

    @classmethod
    def of(cls, params: UploadParams) -> Upload:
        return cls(params["ref"], params["format"], params["sha256"], params["owner"])

    def params(self) -> UploadParams:
        """The form in which it is a parameter."""
        return {
            "ref": self.name,
            "format": self.format,
            "sha256": self.sha256,
            "owner": self.owner,
        }

    @property
    def path(self) -> Path:
        """Its file.

        Raises
        ------
        InvalidParametersError
            It is not there any more, or there is no folder of uploads.
        """
        folder = os.environ.get(FOLDER)
        path = None if folder is None else owner_folder(Path(folder), self.owner) / self.sha256
        if path is None or not path.is_file():
            raise InvalidParametersError(
                f"the uploaded data {self.name!r} is not there any more; upload it again"
            )
        return path


def owner_folder(folder: Path, owner: str) -> Path:
    """Where the files of one owner are; names of owners may hold anything."""
    return folder / hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def read_rows(path: Path, format: str) -> Iterator[Any]:
    """The blocks of a file.

    Raises
    ------
    ValueError, OSError, pyarrow.ArrowException
        It is not of this format.
    """
    if format == "npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"arrays of {array.dtype} are not taken, only of numbers")
        return array_blocks(array)
    if format == "txt":
        return _lines(path)
    return _tables(path, format)


def array_blocks(array: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """An array in blocks of its first axis, each of about 65536 elements."""
    if array.ndim == 0:
        array = array.reshape(1)
    row = max(1, int(np.prod(array.shape[1:], dtype=np.int64)))
    step = max(1, _BLOCK_ELEMENTS // row)
    for start in range(0, len(array), step):
        yield np.array(array[start : start + step])


def number_blocks(data: Any, column: str | None) -> Iterator[np.ndarray[Any, Any]]:
    """Blocks of numbers: of a list, or of an uploaded array or one column of an uploaded table.

    Raises
    ------
    InvalidParametersError
        They are no numbers, or no column is named where there are several.
    """
    if isinstance(data, list):
        yield from array_blocks(_numbers(data))
        return
    upload = Upload.of(data)
    if upload.format == "txt":
        raise InvalidParametersError(f"{upload.name!r} holds text, not numbers")
    for block in read_rows(upload.path, upload.format):
        yield block if isinstance(block, np.ndarray) else _column(block, column, upload.name)


def table_blocks(data: Any) -> Iterator[pa.Table]:
    """Blocks of rows: of a list of objects, or of an uploaded table.

    Raises
    ------
    InvalidParametersError
        It is no table.
    """
    import pyarrow as pa

    if isinstance(data, list):
        for start in range(0, len(data), _BLOCK_LINES):
            try:
                yield pa.Table.from_pylist(data[start : start + _BLOCK_LINES])
            except pa.ArrowException as error:
                raise InvalidParametersError(f"data is no table: {error}") from None
        return
    upload = Upload.of(data)
    for block in read_rows(upload.path, upload.format):
        if isinstance(block, list):
            raise InvalidParametersError(f"{upload.name!r} holds text, not a table")
        if isinstance(block, np.ndarray):
            columns = block.reshape(len(block), -1)
            block = pa.table({str(i): columns[:, i] for i in range(columns.shape[1])})
        yield block


def line_blocks(data: Any) -> Iterator[list[str]]:
    """Blocks of texts: of a list, or of the lines of an uploaded text."""
    if isinstance(data, list):
        for start in range(0, len(data), _BLOCK_LINES):
            yield data[start : start + _BLOCK_LINES]
        return
    upload = Upload.of(data)
    if upload.format != "txt":
        raise InvalidParametersError(f"{upload.name!r} is not a text (name.txt)")
    yield from read_rows(upload.path, "txt")


def whole_array(data: Any) -> np.ndarray[Any, Any]:
    """All of it as one array.

    Raises
    ------
    InvalidParametersError
        It is no array of numbers.
    """
    if isinstance(data, list | int | float) and not isinstance(data, bool):
        return _numbers(data)
    upload = Upload.of(data)
    if upload.format == "npy":
        array: np.ndarray[Any, Any] = np.load(upload.path, allow_pickle=False)
        return array
    blocks = list(number_blocks(data, None))
    return np.concatenate(blocks) if blocks else np.zeros(0)


def _numbers(data: Any) -> np.ndarray[Any, Any]:
    try:
        array = np.array(data)
        if array.size == 0:
            return array.astype(np.float64)
        if array.dtype.kind == "f" and any(type(x) is int and abs(x) > 2**53 for x in data):
            # Integers that became floats beside others stay what they are.
            array = np.array(data, dtype=object)
        kinds = "biuf" + _OBJECTS
        if array.dtype.kind == _OBJECTS:
            plain = all(type(x) in (int, float) for x in array.ravel())
        else:
            plain = array.dtype.kind in kinds
    except (ValueError, OverflowError) as error:
        raise InvalidParametersError(f"data is no array of numbers: {error}") from None
    if not plain:
        raise InvalidParametersError("data is no array of numbers")
    return array


def _column(table: pa.Table, column: str | None, name: str) -> np.ndarray[Any, Any]:
    names = table.column_names
    if column is None and len(names) == 1:
        column = names[0]
    if column is None or names.count(column) != 1:
        raise InvalidParametersError(f"{name!r}: give a column, one of {', '.join(names)[:500]}")
    values = table.column(column)
    if values.null_count:
        raise InvalidParametersError(
            f"column {column!r} of {name!r} has {values.null_count} missing values or more"
        )
    array: np.ndarray[Any, Any] = values.to_numpy()
    if array.dtype.kind not in "biuf":
        raise InvalidParametersError(f"column {column!r} of {name!r} holds no numbers")
    return array


def _lines(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8") as file:
        block: list[str] = []
        for line in file:
            block.append(line.rstrip("\n"))
            if len(block) == _BLOCK_LINES:
                yield block
                block = []
        if block:
            yield block


def _tables(path: Path, format: str) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as parquet

    if format == "parquet":
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BLOCK_ELEMENTS):
                yield pa.Table.from_batches([batch])
    elif format == "csv":
        with csv.open_csv(path) as rows:
            for batch in rows:
                yield pa.Table.from_batches([batch])
    else:
        with path.open("rb") as source:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            if is_file:
                opened = pa.ipc.open_file(source)
                for i in range(opened.num_record_batches):
                    yield pa.Table.from_batches([opened.get_batch(i)])
            else:
                for batch in pa.ipc.open_stream(source):
                    yield pa.Table.from_batches([batch])
