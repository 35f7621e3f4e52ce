"""Seconds, bytes, names and colours as pictures write them."""

from __future__ import annotations

import re
from typing import Final

COLOURS: Final = (
    *("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"),
    *("#88a0c0", "#f0a8a0", "#80b890", "#d8d090", "#8c6d31", "#999999"),
)
"""Colours of Paul Tol's bright scheme, which colour-blind readers can tell apart, and paler ones
of them for graphs of many operations. The last stands for all the others."""

_HASH = re.compile(r"-[0-9a-f]{8,}(?![0-9a-z])")


def colours(names: list[str]) -> dict[str, str]:
    """Return a colour for each name, in their order; names beyond the colours share the last."""
    return {name: COLOURS[min(i, len(COLOURS) - 1)] for i, name in enumerate(names)}


def seconds_text(seconds: float) -> str:
    """Write a duration in a unit that suits it: ``0.0021`` -> ``"2.1 ms"``."""
    if seconds < 0:
        return "-" + seconds_text(-seconds)
    if seconds == 0:
        return "0 s"
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def bytes_text(size: float, digits: int = 4) -> str:
    """Write a size in a unit that suits it: ``1536`` -> ``"1.5 KiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.{digits}g} {unit}"
        size /= 1024
    return f"{size:.{digits}g} TiB"


def counted(number: int, noun: str) -> str:
    """Write a number of things: ``1 task``, ``2,000 tasks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def short_name(key: str) -> str:
    """Return the readable part of a task's key: without hashes, and without its number.

    Examples
    --------
    >>> short_name("map[len+add]-0a1b2c3d4e5f/12")
    'map[len+add]'
    """
    return _HASH.sub("", key).partition("/")[0] or key


def cut(text: str, most: int) -> str:
    """Return ``text``, or its beginning and an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "…"
