"""A progress bar for work that takes long enough that somebody waits for it."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from agentic_ray.config import Settings


class ProgressBar:
    """Context manager; appears after ``settings.progress_after_seconds``, vanishes at the end.

    Parameters
    ----------
    wanted : bool or None
        None: only where a person watches (a terminal or a notebook).
    total : int or None
        Items in all, None when not known.
    """

    def __init__(self, label: str, total: int | None, wanted: bool | None, settings: Settings):
        if wanted is None:
            wanted = settings.progress
        self._wanted = _watched() if wanted is None else wanted
        self._label = label
        self._total = total
        self._due = time.monotonic() + settings.progress_after_seconds
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show that ``done`` items are done; draws nothing before it is due."""
        if not self._wanted or time.monotonic() < self._due:
            return
        if self._bar is None:
            self._start()
        total = self._total if total is None else total
        self._bar.update(self._task, completed=done, total=total, note=note)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(self._label, total=self._total, note="")
        self._bar.start()


def _watched() -> bool:
    if "ipykernel" in sys.modules:
        return True
    return sys.stderr is not None and sys.stderr.isatty()
