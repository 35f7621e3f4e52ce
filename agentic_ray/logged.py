"""Formats the logs of our own processes, as JSON or text, with the ids of request, job and bundle.

`set_up` is for processes that are the project's own (the service, the master's actor, the process
with the session): a library must not say where the lines of a user's program go.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ids import Ids, current_ids
from agentic_ray.shown import cut_text

LogFormat = Literal["json", "text"]
FORMATS: Final[tuple[LogFormat, ...]] = get_args(LogFormat)
VARIABLE: Final = "AGENTIC_RAY_LOG_FORMAT"
"""Tells processes that are started by others of ours; also a setting of users'."""
PRINTED: Final = "agentic_ray.printed"
"""Logger of the lines that jobs print."""

_SECRETS: Final = ("AGENTIC_RAY_TOKEN", "AGENTIC_RAY_WEBHOOK_SECRET", "PGPASSWORD")
_SHORTEST_SECRET: Final = 6
_HIDDEN: Final = "[secret]"
_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), 127)}


class _Formatter(logging.Formatter):
    """Base of both formats: adds the ids, cuts long texts and hides secrets."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        super().__init__()
        self._secrets = [text for text in secrets if len(text) >= _SHORTEST_SECRET]

    def shown(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return cut_text(text)

    def facts(self, record: logging.LogRecord) -> dict[str, str]:
        """All but time and text; nothing that is empty."""
        ids: Ids = getattr(record, "ids", None) or current_ids()
        facts = {
            "request_id": ids.request,
            "job_id": ids.job,
            "bundle_id": ids.bundle,
            "trace_id": ids.trace_id,
            "node": getattr(record, "node", ""),
            "stream": getattr(record, "stream", ""),
        }
        return {name: value for name, value in facts.items() if value}

    def exception(self, record: logging.LogRecord) -> str:
        if not record.exc_info or record.exc_info[0] is None:
            return ""
        return self.shown(self.formatException(record.exc_info))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class JsonFormatter(_Formatter):
    """A line is an object: ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``, and
    ``request_id``, ``job_id``, ``bundle_id``, ``trace_id``, ``node``, ``stream`` and ``exception``
    where there are such."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": self.shown(record.getMessage()),
            **self.facts(record),
        }
        if raised := self.exception(record):
            line["exception"] = raised
        return json.dumps(line)


class TextFormatter(_Formatter):
    """A line for people: time, level, logger, text, ids. What follows in further lines is indented,
    so that no text can look like a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        text = self.shown(record.getMessage())
        if raised := self.exception(record):
            text = f"{text}\n{raised}"
        first, *rest = text.translate(_CONTROL).split("\n")
        facts = " ".join(f"{name}={value}" for name, value in self.facts(record).items())
        head = f"{_time(record)} {record.levelname} {record.name}: {first}"
        return "\n  ".join([f"{head} [{facts}]" if facts else head, *rest])


def set_up(form: str, secrets: Collection[str] = ()) -> None:
    """Write all lines of this process's log to standard error in this form, and have the processes
    that it starts do the same.

    Parameters
    ----------
    form : str
        ``"json"`` or ``"text"``.
    secrets : collection of str
        Texts that are not written, beside those of the environment.

    Raises
    ------
    InvalidArgumentError
        There is no such format.
    """
    if form not in FORMATS:
        raise InvalidArgumentError(f"the log's format is json or text, not {form[:40]!r}")
    os.environ[VARIABLE] = form
    hidden = {*secrets, *(os.environ.get(name, "") for name in _SECRETS)}
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(hidden) if form == "json" else TextFormatter(hidden))
    root = logging.getLogger()
    for one in [*root.handlers]:
        root.removeHandler(one)
    root.addHandler(handler)
    for name, level in (("agentic_ray", logging.INFO), (PRINTED, logging.INFO)):
        logging.getLogger(name).setLevel(level)


def set_up_as_told() -> None:
    """Do as the process that has started this one; nothing if it was told nothing."""
    if os.environ.get(VARIABLE) in FORMATS:
        set_up(os.environ[VARIABLE])


def tells_of_jobs() -> bool:
    """Whether lines that jobs print belong into this process's log."""
    return logging.getLogger(PRINTED).level == logging.INFO
