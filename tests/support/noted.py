"""A Dispatcher whose events are noted: written by a recorder, or kept in a ring."""

from __future__ import annotations

from typing import Any

from agentic_ray.schedule.dispatcher import Dispatcher
from agentic_ray.schedule.noting import Noter


class Noted:
    """Stands in for a Dispatcher; ``notes`` are called with what happens."""

    def __init__(self, dispatcher: Dispatcher, *notes: Any) -> None:
        self._dispatcher = dispatcher
        self._noter = Noter(dispatcher, list(notes))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._noter if hasattr(self._noter, name) else self._dispatcher, name)
