"""Ids of the work that a thread or task does: request, job, bundle, and the trace that they are in.

They are kept in a context variable, so that every line of the log can carry them (`logged`).
Reading ids that a caller has sent is pure, and takes nothing that is long or could break a line.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final

_REQUEST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:/+=@-]{0,127}", re.ASCII)
_TRACE: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MOST_CHARACTERS: Final = 256


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids of some work; each is empty where there is none.

    Parameters
    ----------
    request : str
        The request that has led to it: the caller's own id, or one that the service made.
    job : str
        ``task_id`` in HTTP.
    bundle : str
        Key of the bundle.
    trace : str
        ``traceparent`` of W3C Trace Context: the span that this work is part of.
    """

    request: str = ""
    job: str = ""
    bundle: str = ""
    trace: str = ""

    @property
    def trace_id(self) -> str:
        """The trace's 32 hexadecimal digits; empty if there is none."""
        return self.trace[3:35]


_current: ContextVar[Ids] = ContextVar("agentic_ray_ids", default=Ids())  # noqa: B039 -- frozen


def current_ids() -> Ids:
    """Return the ids of the request, job and bundle that this thread or task works for."""
    return _current.get()


@contextmanager
def marked(ids: Ids | None = None, **changes: str) -> Iterator[Ids]:
    """Let the work inside have these ids; those that are not named stay.

    Examples
    --------
    >>> from agentic_ray.ids import current_ids, marked
    >>> with marked(request="r1"), marked(job="j1"):
    ...     current_ids()
    Ids(request='r1', job='j1', bundle='', trace='')
    """
    made = replace(_current.get() if ids is None else ids, **changes)
    token = _current.set(made)
    try:
        yield made
    finally:
        _current.reset(token)


def ids_of_request(request_ids: Sequence[str], traceparents: Sequence[str]) -> Ids:
    """The ids of a request with these values of ``X-Request-ID`` and ``traceparent``.

    A header that is given twice, or is not valid, counts as not given. Without a request id the
    trace's id is taken, else one is made.

    Examples
    --------
    >>> from agentic_ray.ids import ids_of_request
    >>> parent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    >>> ids_of_request(["job 1"], [parent]).request == "a" * 32
    True
    >>> ids_of_request(["deploy-7"], []).request
    'deploy-7'
    """
    trace = traceparent(traceparents[0]) if len(traceparents) == 1 else ""
    given = request_ids[0] if len(request_ids) == 1 else ""
    if _REQUEST.fullmatch(given) is None:
        given = trace[3:35] or uuid.uuid4().hex
    return Ids(request=given, trace=trace)


def traceparent(text: str) -> str:
    """The header in the form of version 00; empty if it is not valid.

    Examples
    --------
    >>> from agentic_ray.ids import traceparent
    >>> traceparent("cc-" + "a" * 32 + "-" + "b" * 16 + "-01-later")[:7]
    '00-aaaa'
    >>> traceparent("00-" + "0" * 32 + "-" + "b" * 16 + "-01")
    ''
    """
    found = _TRACE.fullmatch(text) if len(text) <= _MOST_CHARACTERS else None
    if found is None:
        return ""
    version, trace, span, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace, 16) or not int(span, 16):
        return ""
    return f"00-{trace}-{span}-{flags}"
