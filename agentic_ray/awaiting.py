"""Waiting for work from ``async`` code: in a thread, so that the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")


async def in_thread(call: Callable[[], _T], *, cancelled: Callable[[], object]) -> _T:
    """Return the value of ``call()``, made in a thread of its own; raise its exception.

    Parameters
    ----------
    call : callable
        Function that may block. It runs in a copy of the context of the task that waits.
    cancelled : callable
        Called, and must not block, when the task that waits is cancelled. The thread goes on
        until ``call`` returns.
    """
    loop = asyncio.get_running_loop()
    # (An outcome, not the exception itself: a future cannot hold StopIteration.)
    outcome: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if not outcome.done():
            outcome.set_result((value, error))

    def run() -> None:
        value, raised = None, None
        try:
            value = call()
        except BaseException as error:  # raised again in the task that waits
            raised = error
        try:
            loop.call_soon_threadsafe(settle, value, raised)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="agentic-ray-await", daemon=True).start()
    try:
        value, error = await outcome
    except asyncio.CancelledError:
        cancelled()
        raise
    if error is not None:
        raise error
    made: _T = value
    return made
