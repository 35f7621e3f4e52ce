"""Content hashes: equal codelet, version, arguments and inputs give an equal key.

Keys are BLAKE3 hashes (cryptographic, so a key can name a cached result of untrusted input, and
several GB/s). An object can name its own content with a method ``__content_key__() -> str``.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import struct
import types
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import cloudpickle
import numpy as np
from blake3 import blake3

from agentic_ray.errors import SerializationError
from agentic_ray.graph.seen import attributes_seen, globals_read, is_library

_DIGEST_BYTES = 16
_PLAIN = (str, bytes, int, float, complex, bool, type(None), tuple, frozenset)
_UNTOLD = frozenset(
    {
        "__dict__",
        "__weakref__",
        "__doc__",
        "__module__",
        "__annotations__",
        "__firstlineno__",
        "__slotnames__",  # pickle remembers them there
        "__static_attributes__",
        "__annotate_func__",
        "__annotations_cache__",
    }
)
_UNTOLD_TYPES = (types.MemberDescriptorType, types.GetSetDescriptorType)


class Active(tuple[Any, ...]):
    """Functions, classes and modules whose digest is being made, outermost first: recursion ends
    there. ``classes`` are digests already made on the way to one key; a later key makes them anew,
    since attributes of a class may have changed."""

    classes: dict[type, bytes]

    def within(self, value: Any) -> Active:
        """Return a copy with ``value`` as the innermost."""
        inner = Active((*self, value))
        inner.classes = self.classes
        return inner


def _outermost() -> Active:
    active = Active()
    active.classes = {}
    return active


def content_key(prefix: str, *parts: Any) -> str:
    """Return ``prefix`` and the hex digest of ``parts``.

    Functions and classes count by their behaviour: code, defaults, closure, the globals they name
    (not lists and sets that they only add to), and the attributes they name of the user's own
    modules. Those of installed libraries count by name, a function also by its code and the globals
    that are plain constants. Sets count whatever their order, dicts in their order.

    Raises
    ------
    SerializationError
        A part can be neither hashed structurally nor pickled.
    """
    return f"{prefix}-{_digest(parts, _outermost()).hex()}"


def class_content(kind: type) -> str:
    """Return the digest of everything in a class, whichever module it is from.

    Raises
    ------
    SerializationError
        A member can be neither hashed structurally nor pickled.
    """
    return _class_content(kind, _outermost()).hex()


def _digest(value: Any, active: Active) -> bytes:
    hasher = blake3()
    try:
        _feed(hasher.update, value, active)
    except RecursionError:
        raise SerializationError(
            f"cannot make a content key of {type(value).__name__}: it is nested too deeply, or "
            "in itself"
        ) from None
    return hasher.digest(length=_DIGEST_BYTES)


def _feed(update: Callable[[Any], Any], value: Any, active: Active) -> None:
    """Feed a prefix-free encoding of ``value``: type mark, length where needed, content."""
    kind = type(value)
    if kind is str:
        encoded = value.encode("utf-8", "surrogatepass")
        update(b"s%d:" % len(encoded))
        update(encoded)
    elif kind is int:
        update(b"i%x;" % value)
    elif kind is bool or value is None:
        update(b"%r;" % value)
    elif kind is float:
        update(b"f" + struct.pack("<d", value))
    elif kind is bytes:
        update(b"b%d:" % len(value))
        update(value)
    elif kind is tuple or kind is list:
        update(b"%s%d:" % (b"t" if kind is tuple else b"l", len(value)))
        for element in value:
            _feed(update, element, active)
    elif kind is dict:
        update(b"d%d:" % len(value))
        for name, element in value.items():
            _feed(update, name, active)
            _feed(update, element, active)
    elif kind is set or kind is frozenset:
        update(b"%s%d:" % (b"S" if kind is set else b"z", len(value)))
        update(b"".join(sorted(_digest(element, active) for element in value)))
    elif kind is range:
        update(b"r%d,%d,%d;" % (value.start, value.stop, value.step))
    elif kind in (np.ndarray, np.memmap) and not value.dtype.hasobject:
        _feed_array(update, value)
    elif hasattr(kind, "__content_key__"):
        _feed(update, ("own", kind.__qualname__, value.__content_key__()), active)
    elif isinstance(value, type):
        _feed(update, ("class", _class_digest(value, active)), active)
    elif dataclasses.is_dataclass(value):
        fields = tuple(getattr(value, entry.name) for entry in dataclasses.fields(value))
        _feed(update, ("dataclass", kind, fields), active)
    elif isinstance(value, FunctionType):
        _feed_function(update, value, active)
    elif kind is functools.partial:
        _feed(update, ("partial", value.func, value.args, value.keywords), active)
    elif kind is types.MethodType:
        _feed(update, ("method", value.__func__, value.__self__), active)
    elif kind is types.ModuleType:
        _feed(update, ("module", value.__name__), active)  # its used attributes: `_feed_function`
    else:
        _feed(update, ("pickle", _pickled(value, active)), active)


_NONE = _outermost()


def _feed_array(update: Callable[[Any], Any], array: np.ndarray[Any, Any]) -> None:
    _feed(update, ("ndarray", array.dtype.str, array.shape), _NONE)
    if array.dtype.names is not None:  # by fields, since the bytes between them are arbitrary
        _feed(update, repr(array.dtype), _NONE)
        for name in array.dtype.names:
            _feed_array(update, array[name])
    elif array.nbytes:
        contiguous = np.ascontiguousarray(array)
        update(contiguous.reshape(-1).view(np.uint8).data)


def _feed_function(update: Callable[[Any], Any], function: FunctionType, active: Active) -> None:
    depth = _depth_of(function, active)
    if depth is not None:
        _feed(update, ("in", depth), _NONE)
        return
    inner = active.within(function)
    used = globals_read(function)
    if _is_of_library(function):
        where = function.__module__
        used = {name: value for name, value in used.items() if isinstance(value, _PLAIN)}
    else:
        where = ""
        used = {name: _used(function, value, inner) for name, value in used.items()}
    closure = tuple(
        [_used(function, _cell_content(cell), inner) for cell in function.__closure__ or ()]
    )
    parts = (
        ("function", where, function.__qualname__, _code_parts(function.__code__)),
        (function.__defaults__, function.__kwdefaults__, function.__dict__),
        (closure, used),
    )
    _feed(update, parts, inner)


def _used(function: FunctionType, value: Any, active: Active) -> Any:
    """Reduce a value that a function sees to the part it uses: of a user's module the attributes
    that it names."""
    if not isinstance(value, types.ModuleType) or is_library(value.__name__):
        return value
    if _depth_of(value, active) is not None:
        return value.__name__
    inner = active.within(value)
    attributes = attributes_seen(function, value)
    found = {name: _used(function, part, inner) for name, part in attributes.items()}
    return ("used of", value.__name__, found)


def _class_digest(kind: type, active: Active) -> bytes:
    """Digest a class: by name if it is a library's, else by its content."""
    if _is_of_library(kind):
        return f"{kind.__module__}.{kind.__qualname__}".encode()
    return _class_content(kind, active)


def _class_content(kind: type, active: Active) -> bytes:
    depth = _depth_of(kind, active)
    if depth is not None:
        return b"in %d" % depth
    digest = active.classes.get(kind)
    if digest is None:
        content = {
            name: value
            for name, value in sorted(vars(kind).items())
            if name not in _UNTOLD
            and not name.startswith(("__dataclass_", "_abc_"))
            and not isinstance(value, _UNTOLD_TYPES)
        }
        digest = _digest((kind.__qualname__, kind.__bases__, content), active.within(kind))
        if not active:
            active.classes[kind] = digest
    return digest


def class_code(kind: type) -> str:
    """Return the digest of the code of a class's methods and of its public constants, without the
    globals that its methods see."""
    found: dict[str, Any] = {}
    for name, value in sorted(vars(kind).items()):
        inner = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        if isinstance(inner, FunctionType):
            found[name] = _code_parts(inner.__code__)
        elif isinstance(value, _PLAIN) and name not in _UNTOLD and not name.startswith("_"):
            found[name] = repr(value)
    return content_key("code", found)


def _is_of_library(value: Any) -> bool:
    """Whether a value is a library's own, and was not made inside a function."""
    return (
        is_library(value.__module__)
        and "<" not in value.__qualname__  # <locals>, <lambda>
        and getattr(value, "__closure__", None) is None
    )


def _depth_of(value: Any, active: Active) -> int | None:
    return next((i for i, other in enumerate(active) if other is value), None)


def _cell_content(cell: types.CellType) -> Any:
    try:
        return ("cell", cell.cell_contents)
    except ValueError:  # not filled yet
        return ("empty cell",)


def _code_parts(code: CodeType) -> tuple[Any, ...]:
    signature = (
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags,
        code.co_varnames,
        code.co_freevars,
    )
    return ("code", code.co_code, _constant(code.co_consts), code.co_names, signature)


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _code_parts(value)
    if isinstance(value, tuple):
        return tuple(map(_constant, value))
    if isinstance(value, frozenset):
        return ("frozenset", *sorted(map(repr, value)))
    return repr(value)


class _KeyPickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickler whose bytes depend on the content only, for hashing.

    Left to itself, pickle writes equal strings differently when they are one object, sets in
    their own order, and classes of the main script with a random name.
    """

    def __init__(self, file: io.BytesIO, active: Active) -> None:
        super().__init__(file, protocol=5)
        self._active = active

    def persistent_id(self, value: Any) -> bytes | None:
        kind = type(value)
        if kind is str:
            encoded: bytes = value.encode("utf-8", "surrogatepass")
            return b"s" + encoded
        if (
            kind in (FunctionType, set, frozenset)
            or (kind is np.ndarray and not value.dtype.hasobject)
            or (isinstance(value, type) and not _is_of_library(value))
        ):
            return _digest(value, self._active)
        return None


def _pickled(value: Any, active: Active) -> bytes:
    file = io.BytesIO()
    try:
        _KeyPickler(file, active).dump(value)
    except (RecursionError, SerializationError):
        raise
    except Exception as error:  # pickle raises anything that the object's hooks raise
        raise SerializationError(
            f"cannot make a content key of {type(value).__name__}: {error}"
        ) from error
    return file.getvalue()
