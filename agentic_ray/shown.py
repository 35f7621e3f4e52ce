"""The line that tells a person about a job, in a terminal or a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Final

from agentic_ray.tracebacks import text_of

KEPT_CHARACTERS: Final = 64 << 10
"""Most characters kept of an error's text, wherever it is kept or sent."""
_SHOWN_CHARACTERS: Final = 100


def one_line(error: BaseException) -> str:
    """Return type and text of an exception, cut to one short line."""
    return cut_line(f"{type(error).__name__}: {text_of(error)}")


def cut_line(text: str) -> str:
    """Return ``text`` in one short line."""
    text = " ".join(text[: 10 * _SHOWN_CHARACTERS].split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def cut_text(text: str, most: int = KEPT_CHARACTERS) -> str:
    """Return ``text``, or its beginning and end with a note of how much is left out between."""
    if len(text) <= most:
        return text
    half = (most - 100) // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"


@dataclass(frozen=True, slots=True)
class Shown:
    """Facts about a job for a person.

    Parameters
    ----------
    label : str
        Name of the work.
    state : str
        State of the job in a word.
    detail : str
        Details of the state, such as the error; may be empty.
    done : int
    total : int or None
        Numbers of elements done, and of all elements if that is known.
    seconds : float or None
        Seconds since it started; None: it has not.
    """

    label: str
    state: str
    detail: str = ""
    done: int = 0
    total: int | None = None
    seconds: float | None = None

    def _rest(self) -> str:
        parts = [self.detail] if self.detail else []
        if self.total is not None:
            parts.append(f"{self.done:,} of {self.total:,} elements")
        elif self.done:
            parts.append(f"{self.done:,} elements")
        if self.seconds is not None:
            parts.append(f"{self.seconds:.1f} s")
        left = self._seconds_left()
        if left is not None:
            parts.append(f"about {left:.0f} s left")
        return ", ".join(parts)

    def _seconds_left(self) -> float | None:
        """Return how long the rest takes if it goes on as until now; None if nobody can tell."""
        if self.state != "running" or not (self.total and self.done and self.seconds):
            return None
        return self.seconds * max(self.total - self.done, 0) / self.done

    def text(self) -> str:
        """Return the text for a ``repr``, without the brackets."""
        rest = self._rest()
        return f"{self.label}: {self.state}{', ' if rest else ''}{rest}"

    def html(self) -> str:
        """Return HTML for a notebook."""
        bar = ""
        if self.total and self.state == "running":
            bar = f'<progress value="{self.done}" max="{self.total}"></progress> '
        return (
            f"<b>{html.escape(self.label)}</b>: {bar}{html.escape(self.state)} "
            f"<small>{html.escape(self._rest())}</small>"
        )
