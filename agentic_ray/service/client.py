"""`Client`: talks to a running service over HTTP, with the same errors as a master in-process."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

import httpx

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.service.calls import (
    Call,
    Pages,
    Polls,
    answer_of,
    call,
    connection,
    failure_of,
    is_passing,
    parsed_events,
    pause_after,
    quoted,
    result_of,
    submission,
    unreachable,
)

DEFAULT_URL: Final = "http://127.0.0.1:8080"
Form = Literal["json", "numpy", "arrow", "pandas"]

_ACCEPT: Final[Mapping[str, str]] = {
    "numpy": "application/x-npy",
    "arrow": "application/vnd.apache.arrow.stream",
    "pandas": "application/vnd.apache.arrow.stream",
}
_RECONNECTS: Final = 5
_UPLOADED_BYTES: Final = 1 << 20


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
    ca_file : str, optional
        Certificates (PEM) to trust in place of the usual ones. Default: ``AGENTIC_RAY_CA_FILE``.

    Examples
    --------
    >>> from agentic_ray import Client
    >>> client = Client()
    >>> task_id = client.submit({"data": [1, 2, 3, 4, 5]})
    >>> client.result(task_id)
    55
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        ca_file: str | None = None,
    ) -> None:
        self.url, options = connection(url, token, timeout, ca_file)
        self._http = httpx.Client(**options)

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
        tags: Sequence[str] = (),
    ) -> str:
        """Submit a job; returns its identifier.

        Parameters
        ----------
        params : JSON-able
            Parameters of the workload, e.g. ``{"data": [1, 2, 3]}`` for the default one; numpy
            values are converted.
        workload : str, optional
            Its name.
        priority, timeout_seconds, deadline_seconds, user, idempotency_key, cache, tags
            As in `Master.submit`. Without a user the service takes the holder of the token; without
            a key one is made up, so that a request whose answer is lost is sent again safely.

        Raises
        ------
        UnknownWorkloadError, InvalidParametersError, QueueFullError, IdempotencyError
            As in `Master.submit`.
        ServiceError
            The service cannot be reached or refuses.
        """
        asked = submission(
            params,
            workload=workload,
            priority=priority,
            timeout_seconds=timeout_seconds,
            deadline_seconds=deadline_seconds,
            user=user,
            idempotency_key=idempotency_key,
            cache=cache,
            tags=tags,
        )
        return str(self._ask(asked)["task_id"])

    def status(self, task_id: str) -> dict[str, Any]:
        """Return the facts known of a job: ``task_id``, ``state``, ``result``, ``error`` and more.

        Raises
        ------
        UnknownJobError
            There is no such job.
        ServiceError
        """
        return self._ask(call("GET", f"/status/{quoted(task_id)}"))

    def result(
        self,
        task_id: str,
        timeout: float | None = None,
        *,
        form: Form = "json",
        progress: bool = False,
    ) -> Any:
        """Wait for the result of a job.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; the job goes on after that.
        form : {"json", "numpy", "arrow", "pandas"}
            As plain values, a NumPy array, an Arrow table or a pandas frame.
        progress : bool
            Show meanwhile, on standard error, how the job stands.

        Raises
        ------
        JobTimeoutError
            Not there in time.
        JobCancelledError
            The job was cancelled.
        TaskError
            It failed; the message has the type and the text of the error.
        UnknownJobError, ServiceError
            Also where the result does not have the form.
        """
        if form not in ("json", *_ACCEPT):
            raise InvalidArgumentError(f"form must be json, {', '.join(_ACCEPT)}, not {form!r}")
        with _shown(progress) as show:
            status = self._ended(task_id, timeout, show)
        value = result_of(status)
        return value if form == "json" else self._result_as(task_id, form)

    def retry(self, task_id: str) -> str:
        """Submit again what an ended job was submitted with; returns the new identifier.

        Raises
        ------
        UnknownJobError, QueueFullError
        ServiceError
            Also where the job has not ended.
        """
        return str(self._ask(call("POST", f"/retry/{quoted(task_id)}"))["task_id"])

    def upload(self, name: str, file: str | Path) -> dict[str, Any]:
        """Upload a file for jobs, which then name it: ``{"data": {"ref": name}}``.

        Parameters
        ----------
        name : str
            Ends with its format: ``.npy``, ``.arrow``, ``.parquet``, ``.csv`` or ``.txt``.

        Returns
        -------
        dict
            ``name``, ``format``, ``size``, ``sha256`` and ``created_at``.

        Raises
        ------
        ServiceError
            It is refused.
        OSError
            The file cannot be read.
        """
        with Path(file).open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").digest()
            opened.seek(0)
            headers = {"Content-Digest": f"sha-256=:{base64.b64encode(digest).decode()}:"}
            content = iter(lambda: opened.read(_UPLOADED_BYTES), b"")
            options = {"content": content, "headers": headers}
            return self._ask(Call("PUT", f"/data/{quoted(name)}", options))

    def events(self, task_id: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the events from now on, of all jobs of one's own, or of one job until it has ended.

        Goes on after a connection that was lost, where it was.

        Yields
        ------
        dict
            ``event`` (its kind), ``id`` and ``data``.

        Raises
        ------
        UnknownJobError, ServiceError
        """
        path = "/events" if task_id is None else f"/events/{quoted(task_id)}"
        last, failures = "", 0
        while True:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
            try:
                with self._http.stream("GET", path, headers=headers, timeout=None) as response:
                    if not response.is_success:
                        response.read()
                        raise failure_of(self.url, path, response)
                    for event in parsed_events(response.iter_lines()):
                        last, failures = event["id"] or last, 0
                        yield event
                if task_id is not None:
                    return
            except httpx.HTTPError as error:
                if failures == _RECONNECTS:
                    raise unreachable(self.url, error) from error
            time.sleep(pause_after(failures, None))
            failures += 1

    def workloads(self) -> list[dict[str, Any]]:
        """The workloads there are: ``name``, ``version``, ``description``, ``schema`` and more."""
        found: list[dict[str, Any]] = self._ask(call("GET", "/workloads"))["workloads"]
        return found

    def cancel(self, task_id: str) -> dict[str, Any]:
        """Cancel a job; returns its status. One that has finished stays as it is.

        Raises
        ------
        UnknownJobError, ServiceError
        """
        return self._ask(call("POST", f"/cancel/{quoted(task_id)}"))

    def logs(self, task_id: str, first: int = 0) -> tuple[list[dict[str, Any]], int, bool]:
        """Return the lines that a job has printed, from line number ``first`` on, at most 1000 at
        once.

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
        answer = self._ask(call("GET", f"/logs/{quoted(task_id)}", {"first": first}))
        return answer["lines"], int(answer["next"]), bool(answer["finished"])

    def jobs(
        self,
        *,
        state: str | None = None,
        workload: str | None = None,
        user: str | None = None,
        tag: str | None = None,
        limit: int = 100,
    ) -> list[dict[str, Any]]:
        """The newest jobs that fit, newest first, without their results.

        Raises
        ------
        ServiceError
        """
        query = {"state": state, "workload": workload, "user": user, "tag": tag}
        pages = Pages(query, limit)
        while not pages.over:
            pages.add(self._ask(call("GET", "/jobs", pages.query)))
        return pages.jobs

    def cluster(self) -> dict[str, Any]:
        """The state of the service's cluster, as `ClusterState.to_dict`."""
        return self._ask(call("GET", "/cluster"))

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

    def _ended(
        self, task_id: str, timeout: float | None, show: Callable[[str], object]
    ) -> dict[str, Any]:
        polls = Polls(task_id, timeout)
        while True:
            status = self.status(task_id)
            show(str(status["state"]))
            if status["state"] not in ("queued", "running"):
                return status
            time.sleep(polls.next_pause(status["state"]))

    def _result_as(self, task_id: str, form: Form) -> Any:
        path = f"/result/{quoted(task_id)}"
        response = self._send(Call("GET", path, {"headers": {"Accept": _ACCEPT[form]}}, 4))
        if not response.is_success:
            raise failure_of(self.url, path, response)
        if form == "numpy":
            import numpy as np

            return np.load(io.BytesIO(response.content), allow_pickle=False)
        import pyarrow as pa

        table = pa.ipc.open_stream(response.content).read_all()
        return table if form == "arrow" else table.to_pandas()

    def _ask(self, asked: Call) -> dict[str, Any]:
        return answer_of(self.url, asked.path, self._send(asked))

    def _send(self, asked: Call) -> httpx.Response:
        for attempt in range(asked.tries):
            is_last = attempt + 1 == asked.tries
            try:
                response = self._http.request(asked.method, asked.path, **asked.options)
            except httpx.ConnectError as error:
                raise unreachable(self.url, error) from error  # there is nobody to ask again
            except httpx.HTTPError as error:
                if is_last:
                    raise unreachable(self.url, error) from error
                time.sleep(pause_after(attempt, None))
                continue
            if is_last or not is_passing(response):
                return response
            time.sleep(pause_after(attempt, response))
        raise AssertionError("a call is made at least once")


@contextlib.contextmanager
def _shown(progress: bool) -> Iterator[Callable[[str], object]]:
    """Return a function that is told the state of a job and shows it in a line on standard
    error."""
    if not progress:
        yield lambda state: None
        return
    # imported when it is used: it takes a while to import
    from rich.console import Console

    with Console(stderr=True).status("waiting") as line:
        yield line.update
