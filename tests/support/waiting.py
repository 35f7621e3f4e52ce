"""Waiting until something has come about."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 240, about: str = "it") -> T:
    """Wait until ``condition`` gives something true, and return that."""
    deadline = time.monotonic() + seconds
    pause = 0.002
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{about} has not come about in {seconds:g} s"
        time.sleep(pause)
        pause = min(1.5 * pause, 0.05)
    return found
