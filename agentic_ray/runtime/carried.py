"""Exceptions on their way home: taken apart where they were raised, made again for the caller.

Pickle calls a class again with the exception's ``args``. That fails for a class whose ``__init__``
takes other arguments than it hands on, or gives another text without saying so. So the unpickled
exception is compared with the raised one; where they differ, the exception is made without
``__init__``, from its arguments and attributes.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import importlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from types import (
    BuiltinFunctionType,
    CodeType,
    GetSetDescriptorType,
    MemberDescriptorType,
    TracebackType,
)
from typing import Any, Final

from ray import cloudpickle

from agentic_ray.errors import TaskError
from agentic_ray.tracebacks import set_member, text_of

_ENDING = (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)
"""If these were raised in the caller, they would end its program, or be taken for a cancellation of
its own."""
_MOST_LINKS: Final = 20
"""Most exceptions carried that led to another; the rest is in the text only."""
_MOST_FRAMES: Final = 50
"""Most frames carried of a traceback at either end."""
_STAND_IN_CHARACTERS: Final = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """An entry of a traceback: in a function that begins at ``first_line``, from ``column`` of
    ``line`` to ``end_column`` of ``end_line``."""

    file: str
    function: str
    module: str
    first_line: int
    line: int
    end_line: int
    column: int
    end_column: int


@dataclass(frozen=True, slots=True)
class Carried:
    """An exception as it crosses processes.

    ``whole`` is its pickle, if unpickling gives the same exception. Otherwise the exception is made
    from ``kind`` (its class, pickled), ``args`` and ``members`` (attributes and slots), or, for a
    group, from the exceptions in it. Without either a `TaskError` stands for it, which also derives
    from the first of ``bases`` (module and name) that can be imported.
    """

    name: str
    text: str
    places: tuple[Place, ...]
    whole: bytes | None = None
    kind: bytes | None = None
    args: tuple[bytes, ...] = ()
    members: tuple[tuple[str, bytes], ...] = ()
    children: tuple[Carried, ...] = ()
    bases: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    cause: Carried | None = None
    context: Carried | None = None
    suppressed: bool = False


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except BaseException as raised:
        return f"<a {type(value).__name__} whose repr raises {type(raised).__name__}>"


# --- where it was raised ----------------------------------------------------------------------


def take(error: BaseException) -> Carried:
    """Take an exception apart, and those that led to it. Never raises."""
    return _take(error, [])


def _take(error: BaseException, seen: list[int]) -> Carried:
    seen.append(id(error))
    kind = type(error)
    parts: dict[str, Any] = {}
    if not isinstance(error, _ENDING):
        if not isinstance(error, BaseExceptionGroup):
            parts["whole"] = _whole(error)
        if parts.get("whole") is None:
            parts |= _parts(error, seen)
        parts["bases"] = tuple(
            (base.__module__, base.__qualname__)
            for base in kind.__mro__
            if base not in (Exception, BaseException, object)
        )
    return Carried(
        f"{kind.__module__}.{kind.__qualname__}",
        text_of(error),
        tuple(_places(error.__traceback__)),
        notes=tuple(map(str, _notes(error))),
        cause=_link(error.__cause__, seen),
        context=None if error.__cause__ is not None else _link(error.__context__, seen),
        suppressed=error.__suppress_context__,
        **parts,
    )


def _link(error: BaseException | None, seen: list[int]) -> Carried | None:
    if error is None or id(error) in seen or len(seen) >= _MOST_LINKS:
        return None
    return _take(error, seen)


def _notes(error: BaseException) -> list[Any]:
    notes = getattr(error, "__notes__", None)
    return list(notes) if isinstance(notes, list) else []


def _places(trace: TracebackType | None) -> Iterator[Place]:
    links = []
    while trace is not None:
        links.append(trace)
        trace = trace.tb_next
    if len(links) > 2 * _MOST_FRAMES:
        del links[_MOST_FRAMES:-_MOST_FRAMES]
    for link in links:
        code = link.tb_frame.f_code
        found = itertools.islice(code.co_positions(), link.tb_lasti // 2, None)
        _, end_line, column, end_column = next(found, (None,) * 4)
        line = link.tb_lineno or code.co_firstlineno
        yield Place(
            code.co_filename,
            code.co_name,
            str(link.tb_frame.f_globals.get("__name__", "")),
            max(code.co_firstlineno, 1),
            line,
            max(end_line or line, line),
            column or 0,
            end_column or 0,
        )


def _whole(error: BaseException) -> bytes | None:
    """Return the pickle of an exception if unpickling gives the same again."""
    try:
        data: bytes = cloudpickle.dumps(error)
        again = cloudpickle.loads(data)
    except Exception:  # whatever its own hooks raise
        return None
    same = (
        type(again) is type(error)
        and text_of(again) == text_of(error)
        and _shown(again.args) == _shown(error.args)
        and vars(again).keys() == vars(error).keys()
    )
    return data if same else None


def _parts(error: BaseException, seen: list[int]) -> dict[str, Any]:
    """Return fields of `Carried` that make the exception without a call of ``__init__``."""
    try:
        kind: bytes = cloudpickle.dumps(type(error))
        cloudpickle.loads(kind)
    except Exception:  # raised by its metaclass or by objects that it captures
        return {}
    missing: list[str] = []
    args = []
    children: tuple[Carried, ...] = ()
    given = error.args
    if isinstance(error, BaseExceptionGroup):
        given = (error.message,)
        children = tuple(_take(child, seen) for child in error.exceptions)
    for number, value in enumerate(given):
        data, problem = _sent(value)
        if data is None:
            data = cloudpickle.dumps(_shown(value)[:_STAND_IN_CHARACTERS])
            missing.append(f"its argument {number} is the text of an object that {problem}")
        args.append(data)
    members = []
    for name, value, own in _members(error):
        data, problem = _sent(value)
        if data is not None:
            members.append((name, data))
        elif own:
            missing.append(f"its attribute {name!r} {problem}")
    return {
        "kind": kind,
        "args": tuple(args),
        "members": tuple(members),
        "missing": tuple(missing),
        "children": children,
    }


def _sent(value: Any) -> tuple[bytes | None, str]:
    try:
        data: bytes = cloudpickle.dumps(value)
        cloudpickle.loads(data)
    except Exception as error:  # whatever its hooks raise
        return None, f"cannot be sent ({type(error).__name__}: {text_of(error)})"
    return data, ""


def _members(error: BaseException) -> Iterator[tuple[str, Any, bool]]:
    """Yield name and value of attributes and slots, then of the fields of Python's own classes (as
    an OSError's ``errno``; these are not the exception's ``own``)."""
    for name, value in vars(error).items():
        if name != "__notes__":
            yield name, value, True
    for base in type(error).__mro__:
        if base in (BaseException, object):
            continue
        for name, descriptor in vars(base).items():
            if not name.startswith("__") and isinstance(
                descriptor, MemberDescriptorType | GetSetDescriptorType
            ):
                try:
                    value = getattr(error, name)
                except AttributeError:  # a slot that was never set
                    continue
                if value is not None:
                    yield name, value, base.__module__ != "builtins"


# --- where it is wanted -------------------------------------------------------------------------


def make(carried: Carried) -> BaseException:
    """Make the exception again: of its own class if possible, with its traceback and the exceptions
    that led to it."""
    error = _made(carried)
    text = text_of(error)
    if text != carried.text and not isinstance(error, TaskError):
        add_note(error, f"its text where it was raised: {carried.text}")
    for note in (*carried.missing, *carried.notes):
        if note not in _notes(error):
            add_note(error, note)
    set_member(error, "__traceback__", traceback_of(carried.places))
    if carried.cause is not None:
        set_member(error, "__cause__", make(carried.cause))
    elif carried.context is not None:
        set_member(error, "__context__", make(carried.context))
    set_member(error, "__suppress_context__", carried.suppressed)
    return error


def add_note(error: BaseException, note: str) -> None:
    """Add a note as the method does, also to exceptions that refuse to be changed (frozen
    dataclasses do)."""
    set_member(error, "__notes__", [*_notes(error), note])


def _made(carried: Carried) -> BaseException:
    try:
        if carried.whole is not None:
            whole = cloudpickle.loads(carried.whole)
            if isinstance(whole, BaseException):
                return whole
        if carried.kind is not None:
            return _from_parts(carried)
    except Exception:  # its module is not here, or its hooks raise here: a TaskError says it
        return _stand_in(carried)
    return _stand_in(carried)


def _from_parts(carried: Carried) -> BaseException:
    assert carried.kind is not None
    kind = cloudpickle.loads(carried.kind)
    args = tuple(map(cloudpickle.loads, carried.args))
    if carried.children:
        args = (*args, [make(child) for child in carried.children])
    new = next(
        vars(base)["__new__"]
        for base in kind.__mro__
        if isinstance(vars(base).get("__new__"), BuiltinFunctionType)
    )
    error: BaseException = new(kind, *args)
    if not carried.children:
        set_member(error, "args", args)
    for name, data in carried.members:
        try:
            set_member(error, name, cloudpickle.loads(data))
        except (AttributeError, TypeError):
            continue  # it cannot be set from outside; a text that depends on it differs
    return error


def _stand_in(carried: Carried) -> TaskError:
    """Return a TaskError that is caught as the nearest class that exists here."""
    text = f"{carried.name}: {carried.text}"
    for module, name in carried.bases:
        try:
            base: Any = importlib.import_module(module)
            for part in name.split("."):
                base = getattr(base, part)
            return task_error_like(base, text)
        except Exception:  # not here, not importable, or incompatible with TaskError
            continue
    return TaskError(text)


def task_error_like(base: type[Exception], text: str) -> TaskError:
    """Make a TaskError that is also a ``base``; raise TypeError if there can be none."""
    return _like(base)(text)  # type: ignore[arg-type]  # classes can be hashed


@functools.cache
def _like(base: type[Exception]) -> type[TaskError]:
    if not issubclass(base, Exception):
        raise TypeError(f"{base.__qualname__} is no Exception")
    if issubclass(base, TaskError):
        return base
    if issubclass(TaskError, base):
        return TaskError

    def reduce(self: TaskError) -> Any:
        return task_error_like, (base, text_of(self)), dict(vars(self))

    members = {
        "__init__": RuntimeError.__init__,
        "__str__": BaseException.__str__,
        "__reduce__": reduce,
        "__doc__": f"A TaskError that is caught as {base.__qualname__} too.",
        "__module__": TaskError.__module__,
    }
    return type(TaskError.__name__, (TaskError, base), members)


class _Raised(Exception):
    pass


def traceback_of(places: tuple[Place, ...]) -> TracebackType | None:
    """Make a traceback with these entries, as if the code had run in this process."""
    made: TracebackType | None = None
    for place in reversed(places):
        try:
            exec(_code_at(place), {"__name__": place.module, "__file__": place.file, "E": _Raised})
        except _Raised as raised:
            link: Any = raised.__traceback__  # of this function; the next is of the code above
            made = TracebackType(made, link.tb_next.tb_frame, link.tb_next.tb_lasti, place.line)
    return made


@functools.lru_cache(maxsize=1024)
def _code_at(place: Place) -> CodeType:
    """Compile a function that raises ``E`` and claims to be at a place."""
    at = {
        "lineno": place.line,
        "end_lineno": place.end_line,
        "col_offset": place.column,
        "end_col_offset": place.end_column,
    }
    raising = ast.Raise(exc=ast.Name(id="E", ctx=ast.Load(), **at), cause=None, **at)
    nothing = ast.arguments([], [], None, [], [], None, [])
    function = ast.FunctionDef(
        place.function,
        nothing,
        [raising],
        [],
        lineno=place.first_line,
        end_lineno=max(place.end_line, place.first_line),
        col_offset=0,
        end_col_offset=0,
    )
    module = compile(ast.Module([function], []), place.file, "exec")
    code: CodeType = next(constant for constant in module.co_consts if type(constant) is CodeType)
    return code
