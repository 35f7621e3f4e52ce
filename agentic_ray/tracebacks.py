"""Trims exceptions for people: shows the caller's own frames, not those of this package.

All frames are shown where ``AGENTIC_RAY_FULL_TRACEBACKS=1`` is set, or the setting
``full_tracebacks`` of `agentic_ray.init`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, MutableMapping
from types import FrameType, FunctionType, TracebackType
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")

PACKAGE = __name__.partition(".")[0]
_PLUMBING = frozenset(
    {"asyncio", "cloudpickle", "concurrent", "contextlib"}
    | {"functools", "pickle", "ray", "threading"}
)
"""Modules that this package calls, or is called through, on the way to a user's function."""
_MOST_LINKS = 100

_show_all: bool | None = None


def show_all(wanted: bool | None) -> None:
    """Show every frame from now on, or not; None: as the environment says."""
    global _show_all
    _show_all = wanted


def shows_all() -> bool:
    """Whether every frame is shown."""
    if _show_all is not None:
        return _show_all
    said = os.environ.get(f"{PACKAGE.upper()}_FULL_TRACEBACKS", "").lower()
    return said in ("1", "true", "yes")


def _root(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _links(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def trimmed(trace: TracebackType | None) -> TracebackType | None:
    """Return a copy without the frames of this package and its plumbing; None if none is left."""
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
    """Return ``str(error)``, also where the user's ``__str__`` raises."""
    try:
        return str(error)
    except BaseException as raised:  # called to report an error, so it raises none
        return f"(its text cannot be made: its __str__ raises {type(raised).__name__})"


def set_member(error: BaseException, name: str, value: Any) -> None:
    """Set a member, also where the exception's own ``__setattr__`` refuses, as frozen ones do."""
    BaseException.__setattr__(error, name, value)


def trim(error: BaseException) -> None:
    """Leave only the frames of others in an exception and in those that led to it."""
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
    """Wrap a function that people call, so that its exceptions show no frame of this package.

    (The wrapper made here leaves the traceback, too: an exception that is raised again as it is
    does not pass it a second time.)
    """

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            if not shows_all():
                trim(error)
            raise

    return call


def entries(names: MutableMapping[str, Any]) -> None:
    """Make each public function in the namespace of a module an `entry`: those in its ``__all__``,
    or else those that are defined in it. Pickle looks for them there from now on."""
    module = names["__name__"]
    public = names.get("__all__")
    for name, value in list(names.items()):
        if not isinstance(value, FunctionType) or name.startswith("_"):
            continue
        if name in public if public is not None else value.__module__ == module:
            made = entry(value)
            made.__module__, made.__qualname__ = module, name
            names[name] = made


def attribute_entry(function: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """Wrap a ``__getattr__`` as `entry` does, and answer at once that there is no attribute of a
    protocol: NumPy asks for two of them, such as ``__array_struct__``, at each conversion, and
    catches the error."""
    shown = entry(function)

    @functools.wraps(function)
    def call(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self
            )
        return shown(self, name)

    return call


def entry_methods(kind: type[_T]) -> type[_T]:
    """Make the methods of a class entries, except private ones; also those it has inherited from
    classes of this package."""
    for base in reversed(kind.__mro__):
        if not base.__module__.startswith(f"{PACKAGE}."):
            continue
        for name, value in list(vars(base).items()):
            # (Not where they are made: this package makes one at each step.)
            private = name.startswith("_") and (name == "__init__" or not name.endswith("__"))
            if isinstance(value, FunctionType) and not private:
                made = attribute_entry if name == "__getattr__" else entry
                setattr(kind, name, made(value))
    return kind


def render_in_ipython(error: BaseException) -> list[str]:
    """Return the lines that IPython shows of an exception, without the frames of this package."""
    from IPython import get_ipython  # IPython is the caller

    shell: Any = get_ipython()
    if not shows_all():
        trim(error)
    lines: list[str] = shell.InteractiveTB.structured_traceback(
        type(error), error, error.__traceback__, tb_offset=1
    )
    return lines
