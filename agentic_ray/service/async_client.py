"""`AsyncClient`: as `Client`, for programs on asyncio."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import httpx

from agentic_ray.service.calls import (
    Call,
    Pages,
    Polls,
    answer_of,
    call,
    connection,
    is_passing,
    pause_after,
    quoted,
    result_of,
    submission,
    unreachable,
)
from agentic_ray.service.client import DEFAULT_URL


class AsyncClient:
    """A connection to ``agentic-ray serve`` for coroutines of one event loop.

    Parameters, results and errors are those of `Client`.

    Examples
    --------
    >>> import asyncio
    >>> from agentic_ray import AsyncClient
    >>> async def total():
    ...     async with AsyncClient() as client:
    ...         return await client.result(await client.submit({"data": [1, 2, 3, 4, 5]}))
    >>> asyncio.run(total())
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
        self._http = httpx.AsyncClient(**options)

    async def submit(self, params: Any, **options: Any) -> str:
        """Submit a job; returns its identifier. ``options`` are those of `Client.submit`."""
        return str((await self._ask(submission(params, **options)))["task_id"])

    async def status(self, task_id: str) -> dict[str, Any]:
        """Return the facts known of a job."""
        return await self._ask(call("GET", f"/status/{quoted(task_id)}"))

    async def result(self, task_id: str, timeout: float | None = None) -> Any:
        """Wait for the result of a job."""
        polls = Polls(task_id, timeout)
        while True:
            status = await self.status(task_id)
            if status["state"] not in ("queued", "running"):
                return result_of(status)
            await asyncio.sleep(polls.next_pause(status["state"]))

    async def cancel(self, task_id: str) -> dict[str, Any]:
        """Cancel a job; returns its status."""
        return await self._ask(call("POST", f"/cancel/{quoted(task_id)}"))

    async def retry(self, task_id: str) -> str:
        """Submit again what an ended job was submitted with; returns the new identifier."""
        return str((await self._ask(call("POST", f"/retry/{quoted(task_id)}")))["task_id"])

    async def jobs(self, *, limit: int = 100, **filters: Any) -> list[dict[str, Any]]:
        """The newest jobs, newest first. ``filters`` are those of `Client.jobs`."""
        pages = Pages(filters, limit)
        while not pages.over:
            pages.add(await self._ask(call("GET", "/jobs", pages.query)))
        return pages.jobs

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _ask(self, asked: Call) -> dict[str, Any]:
        for attempt in range(asked.tries):
            is_last = attempt + 1 == asked.tries
            try:
                response = await self._http.request(asked.method, asked.path, **asked.options)
            except httpx.ConnectError as error:
                raise unreachable(self.url, error) from error  # there is nobody to ask again
            except httpx.HTTPError as error:
                if is_last:
                    raise unreachable(self.url, error) from error
                await asyncio.sleep(pause_after(attempt, None))
                continue
            if is_last or not is_passing(response):
                return answer_of(self.url, asked.path, response)
            await asyncio.sleep(pause_after(attempt, response))
        raise AssertionError("a call is made at least once")
