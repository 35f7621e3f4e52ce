"""`Client`: talks to a running service over HTTP, with the same errors as a master in-process."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

import httpx

from agentic_ray import errors
from agentic_ray.errors import (
    InvalidArgumentError,
    JobCancelledError,
    JobTimeoutError,
    ServiceError,
    TaskError,
)
from agentic_ray.master.workloads import DEFAULT, normalise

DEFAULT_URL: Final = "http://127.0.0.1:8080"
_FIRST_POLL_SECONDS = 0.01
_LONGEST_POLL_SECONDS = 0.5

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


class Client:
    """A connection to ``agentic-ray serve``; safe to use from any thread.

    Parameters
    ----------
    url : str
        Where the service answers.
    token : str, optional
        Default: ``AGENTIC_RAY_TOKEN``.
    timeout : float
        Seconds that one request may take.

    Examples
    --------
    >>> from agentic_ray import Client
    >>> client = Client()
    >>> task_id = client.submit({"data": [1, 2, 3, 4, 5]})
    >>> client.result(task_id)
    55
    """

    def __init__(
        self, url: str = DEFAULT_URL, token: str | None = None, *, timeout: float = 30.0
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidArgumentError(f"the url must begin with http:// or https://, not {url!r}")
        self.url = url.rstrip("/")
        token = token or os.environ.get("AGENTIC_RAY_TOKEN") or None
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        # trust_env=False: a proxy of the environment is not for a service of one's own.
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=timeout, trust_env=False
        )

    def submit(
        self,
        params: Any,
        *,
        workload: str | None = None,
        priority: int = 0,
        timeout_seconds: float | None = None,
        deadline_seconds: float | None = None,
        user: str | None = None,
        idempotency_key: str | None = None,
        cache: bool = True,
    ) -> str:
        """Submit a job; returns its identifier.

        Parameters
        ----------
        params : JSON-able
            Parameters of the workload, e.g. ``{"data": [1, 2, 3]}`` for the default one; numpy
            values are converted.
        workload : str, optional
            Its name.
        priority, timeout_seconds, deadline_seconds, user, idempotency_key, cache
            As in `Master.submit`. Without a user the service takes the holder of the token.

        Raises
        ------
        UnknownWorkloadError, InvalidParametersError, QueueFullError, IdempotencyError
            As in `Master.submit`.
        ServiceError
            The service cannot be reached or refuses.
        """
        body = {
            "workload": workload or DEFAULT,
            "params": normalise(params)[0],
            "priority": priority,
            "timeout_seconds": timeout_seconds,
        }
        optional = {
            "deadline_seconds": deadline_seconds,
            "user": user,
            "idempotency_key": idempotency_key,
        }
        body |= {name: value for name, value in optional.items() if value is not None}
        if not cache:
            body["cache"] = False
        return str(self._ask("POST", "/submit", json=body)["task_id"])

    def status(self, task_id: str) -> dict[str, Any]:
        """What is known of a job: ``task_id``, ``state``, ``result``, ``error`` and more.

        Raises
        ------
        UnknownJobError
            There is no such job.
        ServiceError
        """
        return self._ask("GET", f"/status/{quote(task_id, safe='')}")

    def result(self, task_id: str, timeout: float | None = None) -> Any:
        """Wait for the result of a job.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; the job goes on after that.

        Raises
        ------
        JobTimeoutError
            Not there in time.
        JobCancelledError
            The job was cancelled.
        TaskError
            It failed; the message has the type and the text of the error.
        UnknownJobError, ServiceError
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_POLL_SECONDS
        while True:
            status = self.status(task_id)
            if status["state"] == "succeeded":
                return status["result"]
            if status["error"] is not None:
                text = f"{status['error']['type']}: {status['error']['message']}"
                if status["state"] == "cancelled":
                    raise JobCancelledError(text)
                raise TaskError(text)
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise JobTimeoutError(
                        f"job {task_id} is {status['state']} after {timeout} seconds"
                    )
                pause = min(pause, left)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL_SECONDS)

    def cancel(self, task_id: str) -> dict[str, Any]:
        """Cancel a job; returns its status. One that has finished stays as it is.

        Raises
        ------
        UnknownJobError, ServiceError
        """
        return self._ask("POST", f"/cancel/{quote(task_id, safe='')}")

    def logs(self, task_id: str, first: int = 0) -> tuple[list[dict[str, Any]], int, bool]:
        """What a job has printed, from line number ``first`` on, at most 1000 lines at once.

        Returns
        -------
        lines : list of dict
            Each with ``number``, ``time``, ``job``, ``node``, ``stream`` and ``text``.
        next : int
            What to give as ``first`` the next time.
        finished : bool
            No more lines will come.

        Raises
        ------
        UnknownJobError, ServiceError
        """
        path = f"/logs/{quote(task_id, safe='')}"
        answer = self._ask("GET", path, params={"first": str(first)})
        return answer["lines"], int(answer["next"]), bool(answer["finished"])

    def jobs(self, *, state: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """The newest jobs, newest first, without their results.

        Raises
        ------
        ServiceError
        """
        query = {"limit": str(limit)} | ({} if state is None else {"state": state})
        found: list[dict[str, Any]] = self._ask("GET", "/jobs", params=query)["jobs"]
        return found

    def cluster(self) -> dict[str, Any]:
        """The state of the service's cluster, as `ClusterState.to_dict`."""
        return self._ask("GET", "/cluster")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ServiceError(
                f"no answer from {self.url} ({type(error).__name__}: {error}); "
                "is `agentic-ray serve` running there?"
            ) from error
        try:
            answer = response.json()
            if response.is_success and isinstance(answer, dict):
                return answer
            kind, message = answer["error"]["type"], answer["error"]["message"]
        except (ValueError, KeyError, TypeError):
            raise ServiceError(
                f"{self.url}{path} answered {response.status_code} with something that is not "
                "agentic_ray's JSON"
            ) from None
        raised = _RAISED.get(kind)
        if raised is errors.QueueFullError:
            raise errors.QueueFullError(message, _seconds(response.headers.get("retry-after")))
        if raised is not None:
            raise raised(message)
        raise ServiceError(f"{response.status_code} {kind}: {message}")


def _seconds(header: str | None) -> float:
    return float(header) if header is not None and header.isdigit() else 1.0
