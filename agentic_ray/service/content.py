"""Results as answers: in the form that was asked for, streamed from a file, whole or in part.

What is large lies in a file while it is sent, so a client that reads slowly costs no memory.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agentic_ray.errors import AgenticRayError
from agentic_ray.master import JobRecord
from agentic_ray.master.jsonvalues import dumps, loads_result, to_json
from agentic_ray.service.bodies import RequestError
from agentic_ray.service.served import ServedMaster

JSON: Final = "application/json"
NPY: Final = "application/x-npy"
ARROW: Final = "application/vnd.apache.arrow.stream"
PARQUET: Final = "application/vnd.apache.parquet"
FORMS: Final = (JSON, NPY, ARROW, PARQUET)

_PIECE_BYTES: Final = 64 << 10
_IN_MEMORY_BYTES: Final = 256 << 10
_WORDS: Final = re.compile(rb"NaN|Infinity")
_LONGEST_WORD: Final = len(b"Infinity")
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


@dataclass(slots=True)
class Content:
    """Bytes to send: ``head``, then a file, then ``tail``."""

    file: BinaryIO
    file_bytes: int
    head: bytes = b""
    tail: bytes = b""

    @property
    def size(self) -> int:
        """In bytes, all together."""
        return len(self.head) + self.file_bytes + len(self.tail)

    def read(self, start: int, count: int) -> bytes:
        """Up to so many bytes from a position; none at the end."""
        if start < len(self.head):
            return self.head[start : start + count]
        start -= len(self.head)
        if start < self.file_bytes:
            self.file.seek(start)
            found = self.file.read(min(count, self.file_bytes - start))
            if not found:
                raise OSError("a result became shorter while it was sent")
            return found
        start -= self.file_bytes
        return self.tail[start : start + count]


class ContentResponse(Response):
    """An answer that is sent piece by piece, as fast as its client reads."""

    def __init__(
        self,
        content: Content,
        media_type: str,
        headers: Mapping[str, str],
        span: tuple[int, int] | None = None,
    ) -> None:
        self._content = content
        self._first, self._end = (0, content.size) if span is None else span
        told = {**headers, "Content-Length": str(self._end - self._first)}
        if span is not None:
            told["Content-Range"] = f"bytes {self._first}-{self._end - 1}/{content.size}"
        super().__init__(None, 200 if span is None else 206, told, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            at = self._first
            while at < self._end:
                count = min(_PIECE_BYTES, self._end - at)
                piece = await run_in_threadpool(self._content.read, at, count)
                at += len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._content.file.close()


def json_content(master: ServedMaster, record: JobRecord) -> Content:
    """The result of a job as strict JSON."""
    stored = master.stored_result(record)
    if isinstance(stored, Path):
        file = stored.open("rb")
        try:
            if not _has_words(file):
                return Content(file, file.seek(0, io.SEEK_END))
        except BaseException:
            file.close()
            raise
        file.close()
    text = dumps(to_json(_value(master, record, stored)))
    return _kept(text.encode("ascii"))


def status_content(master: ServedMaster, record: JobRecord) -> Content:
    """Return the content of ``GET /status`` for a job, with its result."""
    content = json_content(master, record)
    told = dumps(to_json(record.to_dict(with_result=False), name="answer"))
    content.head = f'{told[:-1]},"result":'.encode("ascii")
    content.tail = b"}"
    return content


def result_content(master: ServedMaster, record: JobRecord, form: str) -> Content:
    """The result of a job in one of `FORMS`.

    Raises
    ------
    RequestError
        406: it does not have this form.
    """
    if form == JSON:
        return json_content(master, record)
    value = _value(master, record, master.stored_result(record))
    try:
        made = _npy(value) if form == NPY else _table(value, form)
    except (ValueError, TypeError, OverflowError, ArithmeticError) as error:
        if isinstance(error, AgenticRayError):
            raise
        raise RequestError(
            406, f"the result has no form {form} ({error}); ask for {JSON}", "NotAcceptable"
        ) from None
    made.seek(0)
    return Content(made, made.seek(0, io.SEEK_END))


def chosen_form(accept: str | None) -> str:
    """The form that a client likes best of those there are.

    Raises
    ------
    RequestError
        406: it likes none.
    """
    liked: dict[str, float] = {}
    for part in (accept or "*/*").split(","):
        media, *parameters = (each.strip().lower() for each in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        liked[media] = max(quality, liked.get(media, 0.0))
    best, choice = 0.0, ""
    for form in FORMS:
        names = (form, form.partition("/")[0] + "/*", "*/*")
        quality = next((liked[name] for name in names if name in liked), 0.0)
        if quality > best:
            best, choice = quality, form
    if not choice:
        raise RequestError(406, f"results come as {', '.join(FORMS)}", "NotAcceptable")
    return choice


def span_of(header: str | None, size: int) -> tuple[int, int] | None:
    """Which bytes a Range header asks for: the first, and the one after the last. None: all.

    Raises
    ------
    RequestError
        416: there are no such bytes.
    """
    found = None if header is None else _RANGE.fullmatch(header.strip())
    if found is None or found.group() == "bytes=-":
        return None  # (a range that is not understood is passed over, says RFC 9110)
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < int(first):
            return None
    if start >= end:
        raise RequestError(
            416,
            f"the result has {size} bytes",
            "RangeNotSatisfiable",
            {"Content-Range": f"bytes */{size}"},
        )
    return start, end


def _value(master: ServedMaster, record: JobRecord, stored: bytes | Path | None) -> Any:
    if stored is None:
        return record.result
    return loads_result(stored.read_bytes() if isinstance(stored, Path) else stored)


def _has_words(file: BinaryIO) -> bool:
    """Whether words that are not JSON may be in it; also where they are in a text."""
    rest = b""
    while piece := file.read(1 << 20):
        if _WORDS.search(rest + piece):
            return True
        rest = piece[-_LONGEST_WORD:]
    return False


def _kept(data: bytes) -> Content:
    if len(data) <= _IN_MEMORY_BYTES:
        return Content(io.BytesIO(data), len(data))
    file = _scratch()
    file.write(data)
    return Content(file, len(data))


def _scratch() -> BinaryIO:
    return cast(BinaryIO, tempfile.TemporaryFile())


def _npy(value: Any) -> BinaryIO:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError("it is not an array of numbers")
    file = _scratch()
    np.save(file, array, allow_pickle=False)
    return file


def _table(value: Any, form: str) -> BinaryIO:
    # imported when it is used: it takes a while to import
    import pyarrow as pa
    import pyarrow.parquet as parquet

    if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
        table = pa.table(value)
    elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        table = pa.Table.from_pylist(value)
    elif isinstance(value, list):
        table = pa.table({"value": value})
    else:
        raise ValueError("it is neither columns nor rows")
    file = _scratch()
    if form == PARQUET:
        parquet.write_table(table, file)
    else:
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    return file
