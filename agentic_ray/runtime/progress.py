"""A progress bar for work that takes long enough that somebody waits for it."""

from __future__ import annotations

import html
import importlib
import sys
import time
from types import TracebackType
from typing import Any, Protocol

from agentic_ray.config import Settings


class _Bar(Protocol):
    """A way to show progress."""

    def show(self, done: int, total: int | None, note: str) -> None: ...
    def close(self) -> None: ...


class ProgressBar:
    """Progress bar as a context manager; appears after ``settings.progress_after_seconds``,
    vanishes at the end.

    Parameters
    ----------
    wanted : bool or None
        None: only where a person watches (a terminal or a notebook).
    total : int or None
        Number of items in all; None when not known.
    """

    def __init__(
        self, label: str, total: int | None, wanted: bool | None, settings: Settings
    ) -> None:
        if wanted is None:
            wanted = settings.progress
        self._wanted = wanted
        self._label = label
        self._total = total
        self._due = time.monotonic() + settings.progress_after_seconds
        self._bar: _Bar | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show that ``done`` items are done; draws nothing before it is due."""
        if time.monotonic() < self._due:
            return
        if self._wanted is None:
            self._wanted = _in_notebook() or _on_terminal()
        if not self._wanted:
            return
        if self._bar is None:
            make = _NotebookBar if _in_notebook() else _TerminalBar
            self._bar = make(self._label)
        self._bar.show(done, self._total if total is None else total, note)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()


class _TerminalBar:
    """Bar drawn by rich on standard error, with elapsed and remaining time."""

    def __init__(self, label: str) -> None:
        from rich import progress
        from rich.console import Console

        self._progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(label, total=None, note="")
        self._progress.start()

    def show(self, done: int, total: int | None, note: str) -> None:
        self._progress.update(self._task, completed=done, total=total, note=note)

    def close(self) -> None:
        self._progress.stop()


class _NotebookBar:
    """HTML progress element that is redrawn in place; needs no widget extension."""

    def __init__(self, label: str) -> None:
        ipython: Any = importlib.import_module("IPython.display")
        self._label = label
        self._started = time.monotonic()
        self._handle = ipython.display(_forms("", ""), raw=True, display_id=True)

    def show(self, done: int, total: int | None, note: str) -> None:
        elapsed = time.monotonic() - self._started
        span = f'value="{done}" max="{total}"' if total else ""
        counts = f"{done:,}/{total:,}" if total else f"{done:,}"
        end = f"{counts} {elapsed:.0f} s {note}"
        drawn = f"{html.escape(self._label)} <progress {span}></progress> {html.escape(end)}"
        self._handle.update(_forms(drawn, f"{self._label} {end}"), raw=True)

    def close(self) -> None:
        self._handle.update(_forms("", ""), raw=True)


def _forms(drawn: str, text: str) -> dict[str, str]:
    """Return HTML for a notebook, and the text that other front ends show."""
    return {"text/html": drawn, "text/plain": text}


def _in_notebook() -> bool:
    """Whether this process is a Jupyter kernel with its shell."""
    ipython: Any = sys.modules.get("IPython")
    if ipython is None or "ipykernel" not in sys.modules:
        return False
    return type(ipython.get_ipython()).__name__ == "ZMQInteractiveShell"


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
