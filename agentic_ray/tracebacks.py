"""What a person is shown of an exception: the caller's own frames, not those of this package.

All frames are shown where ``AGENTIC_RAY_FULL_TRACEBACKS=1`` is set, or the setting
``full_tracebacks`` of `agentic_ray.init`.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")

PACKAGE = __name__.partition(".")[0]
_PLUMBING = frozenset(
    {"asyncio", "cloudpickle", "concurrent", "contextlib"}
    | {"functools", "pickle", "ray", "threading"}
)
"""What this package calls, or is called through, on the way to a user's function."""
_HIDDEN = "__tracebackhide__"
"""A local variable that has IPython and pytest leave its frame out."""
_MOST_LINKS = 100

_show_all: bool | None = None


def show_all(wanted: bool | None) -> None:
    """Show every frame from now on, or not; None: as the environment says."""
    global _show_all
    _show_all = wanted


def shows_all() -> bool:
    """Whether every frame is to be shown."""
    if _show_all is not None:
        return _show_all
    said = os.environ.get(f"{PACKAGE.upper()}_FULL_TRACEBACKS", "").lower()
    return said in ("1", "true", "yes")


def is_of_package(frame: FrameType) -> bool:
    """Whether the code of a frame is part of this package."""
    return _root(frame) == PACKAGE


def _root(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _links(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def trimmed(trace: TracebackType | None) -> TracebackType | None:
    """A copy without the frames of this package and of what it calls to reach others; None if
    that leaves nothing."""
    kept: list[TracebackType] = []
    inside = False
    for link in _links(trace):
        root = _root(link.tb_frame)
        inside = root == PACKAGE or (inside and root in _PLUMBING)
        if not inside:
            kept.append(link)
    made: TracebackType | None = None
    for link in reversed(kept):
        made = TracebackType(made, link.tb_frame, link.tb_lasti, link.tb_lineno)
    return made


def text_of(error: BaseException) -> str:
    """``str(error)``, also where the user's ``__str__`` raises."""
    try:
        return str(error)
    except Exception as raised:
        return f"(its text cannot be made: {raised!r})"


def set_member(error: BaseException, name: str, value: Any) -> None:
    """``setattr``, also where the exception's own ``__setattr__`` refuses, as frozen ones do."""
    BaseException.__setattr__(error, name, value)


def trim(error: BaseException) -> None:
    """Leave an exception, and those that led to it, the frames of others only."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left and len(seen) < _MOST_LINKS:
        link = left.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        set_member(link, "__traceback__", trimmed(link.__traceback__))
        left += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            left += link.exceptions


def entry(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A function that people call, whose exceptions show their frames and one of ours."""

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        __tracebackhide__ = True
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            if not shows_all():
                trim(error)
            raise

    return call


def hide_callers() -> None:
    """Have IPython and pytest leave out the frames of this package that are now being executed.

    For exceptions that come out of functions without `entry`: it is the frames above that they
    go through, and those are not in the traceback yet.
    """
    if shows_all() or not ("IPython" in sys.modules or "pytest" in sys.modules):
        return
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_of_package(frame) and frame.f_code.co_name != "<module>":
            frame.f_locals[_HIDDEN] = True
        frame = frame.f_back


def render_in_ipython(error: BaseException) -> list[str]:
    """The lines that IPython shows of an exception, without the frames of this package."""
    from IPython import get_ipython  # it is what calls this

    shell: Any = get_ipython()
    if not shows_all():
        trim(error)
    lines: list[str] = shell.InteractiveTB.structured_traceback(
        type(error), error, error.__traceback__, tb_offset=1
    )
    return lines
