"""Records as rows of the journal, and back. Pure; each row carries checksums of its texts."""

from __future__ import annotations

import zlib
from dataclasses import fields
from typing import Any, Final

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.master.database import Row
from agentic_ray.master.jobs import JobFailure, JobRecord, JobState
from agentic_ray.master.jsonvalues import (
    JsonText,
    dumps,
    dumps_result,
    json_text,
    loads,
    loads_result,
    to_json,
)

COLUMNS: Final = "params, params_check, record, result, record_check"
"""What `from_row` reads."""

_APART: Final = frozenset({"params", "result", "error", "state"})
_PLAIN: Final = tuple(f.name for f in fields(JobRecord) if f.name not in _APART)


def checksum(*texts: str) -> int:
    """CRC-32 of texts, kept apart from each other."""
    value = 0
    for text in texts:
        value = zlib.crc32(text.encode("utf-8", "surrogatepass") + b"\0", value)
    return value


def to_row(record: JobRecord, *, with_params: bool) -> dict[str, Any]:
    """Values for the columns of a job; its parameters never change and are written once."""
    kept: dict[str, Any] = {name: getattr(record, name) for name in _PLAIN}
    kept["state"] = record.state.value
    kept["tags"] = list(record.tags)
    if record.metrics is not None:
        kept["metrics"] = to_json(record.metrics, name="metrics")
    if record.error is not None:
        kept["error"] = [record.error.type, record.error.message, record.error.traceback]
    text = dumps(kept)
    inline = record.state is JobState.SUCCEEDED and record.result_reference is None
    result = dumps_result(record.result) if inline else None
    row: dict[str, Any] = {
        "id": record.id,
        "idempotency_key": record.idempotency_key or None,
        "finished": int(record.state.finished),
        "finished_at": record.finished_at,
        "record": text,
        "result": result,
        "record_check": checksum(text, result or ""),
    }
    if with_params:
        params = json_text(record.params)
        row |= {
            "sequence": record.sequence,
            "owner": record.user,
            "params": params,
            "params_check": checksum(params),
        }
    return row


def from_row(row: Row) -> JobRecord:
    """The record of a row of `COLUMNS`.

    Raises
    ------
    InvalidArgumentError
        The row is not what was written.
    """
    params, params_check, text, result, record_check = row
    if checksum(params) != params_check or checksum(text, result or "") != record_check:
        raise InvalidArgumentError("the checksum of a row differs")
    return _record(text, JsonText(params), None if result is None else loads_result(result))


def outline_of(text: str) -> JobRecord:
    """The record of a job by its column ``record`` alone, for lists: without params and result.

    Raises
    ------
    InvalidArgumentError
        The text is not what was written.
    """
    return _record(text, JsonText("null"), None)


def _record(text: str, params: JsonText, result: Any) -> JobRecord:
    kept = loads(text)
    error = kept.pop("error", None)
    state = JobState(kept.pop("state"))
    kept["tags"] = tuple(kept.get("tags", ()))
    known = {name: value for name, value in kept.items() if name in _PLAIN}
    if len(known) != len(kept):
        raise InvalidArgumentError("a row was written by a later version")
    return JobRecord(
        **known,
        state=state,
        params=params,
        result=result,
        error=None if error is None else JobFailure(*error),
    )
