"""Makes requests for both clients, and turns answers into values and errors. Pure."""

from __future__ import annotations

import json
import os
import random
import ssl
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx

from agentic_ray import errors
from agentic_ray.errors import (
    InvalidArgumentError,
    JobCancelledError,
    JobTimeoutError,
    SerializationError,
    ServiceError,
    TaskError,
)
from agentic_ray.master.jsonvalues import to_json
from agentic_ray.master.workloads import DEFAULT, normalise

_FIRST_POLL_SECONDS: Final = 0.01
_LONGEST_POLL_SECONDS: Final = 0.5

_PAGE: Final = 1000
_TRIES: Final = 4
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
_PASSING: Final = frozenset({429, 502, 503, 504})
"""Answers after which it is worth while to ask again."""

_RAISED: Final[Mapping[str, type[errors.AgenticRayError]]] = {
    kind.__name__: kind
    for kind in (
        errors.IdempotencyError,
        errors.InvalidArgumentError,
        errors.InvalidParametersError,
        errors.InvalidTypeError,
        errors.JournalCorruptError,
        errors.JournalError,
        errors.JournalFencedError,
        errors.QueueFullError,
        errors.ResultCorruptError,
        errors.SerializationError,
        errors.SessionError,
        errors.UnknownJobError,
        errors.UnknownWorkloadError,
    )
}
"""Errors of the service that are raised here as what they are there."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request. It may be made up to ``tries`` times, if it has the same effect as once."""

    method: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tries: int = 1


def connection(
    url: str, token: str | None, timeout: float, ca_file: str | None
) -> tuple[str, dict[str, Any]]:
    """The address of a service, and the options of a connection to it.

    Raises
    ------
    InvalidArgumentError
        It is no address, or the certificates cannot be read.
    """
    if not url.startswith(("http://", "https://")):
        raise InvalidArgumentError(f"the url must begin with http:// or https://, not {url!r}")
    url = url.rstrip("/")
    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidArgumentError(f"the url {url!r} is none: {error}") from error
    token = token or os.environ.get("AGENTIC_RAY_TOKEN") or None
    if token is not None and not (token.isascii() and token.isprintable()):
        raise InvalidArgumentError("the token must be printable ASCII text")
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    # trust_env=False: a proxy of the environment is not for a service of one's own.
    options = {"base_url": url, "headers": headers, "timeout": timeout, "trust_env": False}
    ca_file = ca_file or os.environ.get("AGENTIC_RAY_CA_FILE") or None
    if ca_file is not None:
        try:
            options["verify"] = ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            raise InvalidArgumentError(f"certificates in {ca_file}: {error}") from error
    return url, options


def call(method: str, path: str, params: Mapping[str, Any] | None = None) -> Call:
    """A request without a body; reading and cancelling may be done again."""
    asked = {name: value for name, value in (params or {}).items() if value is not None}
    again = method == "GET" or path.startswith("/cancel/")
    return Call(method, path, {"params": asked} if asked else {}, _TRIES if again else 1)


def submission(
    params: Any,
    *,
    workload: str | None = None,
    priority: int = 0,
    timeout_seconds: float | None = None,
    deadline_seconds: float | None = None,
    user: str | None = None,
    idempotency_key: str | None = None,
    cache: bool = True,
    tags: Any = (),
) -> Call:
    """The request that submits a job; with a key, so that it can be sent again."""
    body: dict[str, Any] = {
        "workload": workload or DEFAULT,
        "priority": priority,
        "timeout_seconds": timeout_seconds,
        "idempotency_key": idempotency_key or f"auto-{uuid.uuid4().hex}",
    }
    optional = {"deadline_seconds": deadline_seconds, "user": user, "tags": list(tags) or None}
    body |= {name: value for name, value in optional.items() if value is not None}
    if not cache:
        body["cache"] = False
    for name, value in body.items():
        try:
            body[name] = to_json(value, name=name, non_finite="refuse")
        except SerializationError as error:
            raise InvalidArgumentError(str(error)) from None
    body["params"] = normalise(params)[0]
    return Call("POST", "/submit", {"json": body}, _TRIES)


def quoted(text: str) -> str:
    """Text as part of a path."""
    return quote(text, safe="")


class Pages:
    """Pages of ``GET /jobs``, asked for until there are so many jobs, or no more.

    Parameters
    ----------
    filters : mapping
        Of the query.
    limit : int
        Jobs that are wanted.
    """

    def __init__(self, filters: Mapping[str, Any], limit: int) -> None:
        self._filters = filters
        self._limit = limit
        self._cursor: str | None = None
        self.jobs: list[dict[str, Any]] = []
        self.over = False

    @property
    def query(self) -> dict[str, Any]:
        """The query for the next page."""
        most = min(self._left, _PAGE)
        return {**self._filters, "limit": most, "cursor": self._cursor}

    @property
    def _left(self) -> int:
        return self._limit - len(self.jobs)

    def add(self, answer: Mapping[str, Any]) -> None:
        """Take what the service has answered."""
        self.jobs += answer["jobs"]
        self._cursor = answer.get("next")  # a service of before has no pages
        self.over = self._cursor is None or self._left < 1


class Polls:
    """The pauses between two looks at a job: each is twice the one before, up to a limit.

    Parameters
    ----------
    task_id : str
        The job, for the error.
    timeout : float or None
        Seconds after which no more looks are taken; None: as many as it takes.
    """

    def __init__(self, task_id: str, timeout: float | None) -> None:
        self._task_id = task_id
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._pause = _FIRST_POLL_SECONDS

    def next_pause(self, state: str) -> float:
        """Return the seconds until the next look at a job that is in this state.

        Raises
        ------
        JobTimeoutError
            The time is over.
        """
        pause = self._pause
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise JobTimeoutError(
                    f"job {self._task_id} is {state} after {self._timeout} seconds"
                )
            pause = min(pause, left)
        self._pause = min(2 * pause, _LONGEST_POLL_SECONDS)
        return pause


def pause_after(attempt: int, response: httpx.Response | None) -> float:
    """Seconds until the next try: what the service says, else longer each time."""
    told = None if response is None else response.headers.get("retry-after")
    if told is not None and told.isdigit():
        return min(float(told), _LONGEST_PAUSE)
    return min(_FIRST_PAUSE * 2.0**attempt, _LONGEST_PAUSE) * (0.5 + random.random() / 2)


def is_passing(response: httpx.Response) -> bool:
    """Whether the answer may be another one soon. A full queue is told to the caller at once."""
    if response.status_code not in _PASSING:
        return False
    try:
        kind = response.json()["error"]["type"]
    except (ValueError, KeyError, TypeError):
        return True
    return bool(kind != "QueueFullError")


def unreachable(url: str, error: Exception) -> ServiceError:
    """The error of a service that does not answer."""
    return ServiceError(
        f"no answer from {url} ({type(error).__name__}: {error}); "
        "is `agentic-ray serve` running there?"
    )


def answer_of(url: str, path: str, response: httpx.Response) -> dict[str, Any]:
    """The object in an answer.

    Raises
    ------
    AgenticRayError
        What the service says is wrong.
    """
    try:
        answer = response.json()
        if response.is_success and isinstance(answer, dict):
            return answer
    except ValueError:
        pass
    raise failure_of(url, path, response)


def failure_of(url: str, path: str, response: httpx.Response) -> errors.AgenticRayError:
    """The error that an answer tells of."""
    try:
        answer = response.json()
        kind, message = answer["error"]["type"], answer["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return ServiceError(
            f"{url}{path} answered {response.status_code} with something that is not "
            "agentic_ray's JSON"
        )
    if kind == errors.QueueFullError.__name__:
        told = response.headers.get("retry-after", "")
        return errors.QueueFullError(message, float(told) if told.isdigit() else 1.0)
    raised = _RAISED.get(kind)
    if raised is not None:
        return raised(message)
    return ServiceError(f"{response.status_code} {kind}: {message}")


def parsed_events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The events of a stream (server-sent events, with JSON as their data)."""
    kind, last, data = "message", "", ""
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                yield {"event": kind, "id": last, "data": json.loads(data)}
            kind, data = "message", ""
        elif name == "event":
            kind = value
        elif name == "id":
            last = value
        elif name == "data":
            data = f"{data}\n{value}" if data else value


def result_of(status: Mapping[str, Any]) -> Any:
    """The result of an ended job.

    Raises
    ------
    JobCancelledError, TaskError
        It has none.
    """
    if status["error"] is None:
        return status.get("result")
    text = f"{status['error']['type']}: {status['error']['message']}"
    if status["state"] == "cancelled":
        raise JobCancelledError(text)
    raise TaskError(text)
