"""Content hashes: equal codelet, version, arguments and inputs give an equal key.

Hashing is by BLAKE3 (cryptographic, so a key can name a cached result of untrusted input, and
several GB/s). An object can name its own content with a method ``__content_key__() -> str``.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import cloudpickle
import numpy as np
from blake3 import blake3

from agentic_ray.errors import SerializationError

_DIGEST_BYTES = 16


def content_key(prefix: str, *parts: Any) -> str:
    """``prefix`` and the hex digest of ``parts``.

    Raises
    ------
    SerializationError
        A part can be neither hashed structurally nor pickled.
    """
    hasher = blake3()
    for part in parts:
        _feed(hasher.update, part)
    return f"{prefix}-{hasher.hexdigest(length=_DIGEST_BYTES)}"


def _feed(update: Callable[[Any], Any], value: Any) -> None:
    """Feed a prefix-free encoding of ``value``: type mark, length where needed, content."""
    kind = type(value)
    if kind is str:
        encoded = value.encode("utf-8", "surrogatepass")
        update(b"s%d:" % len(encoded))
        update(encoded)
    elif kind is int or kind is bool or value is None:
        update(b"%s%r;" % (kind.__name__.encode()[:1], value))
    elif kind is float:
        update(b"f" + struct.pack("<d", value))
    elif kind is bytes:
        update(b"b%d:" % len(value))
        update(value)
    elif kind is tuple or kind is list:
        update(b"%s%d:" % (b"t" if kind is tuple else b"l", len(value)))
        for element in value:
            _feed(update, element)
    elif kind is dict:
        update(b"d%d:" % len(value))
        for name, element in value.items():
            _feed(update, name)
            _feed(update, element)
    elif kind is range:
        update(b"r%d,%d,%d;" % (value.start, value.stop, value.step))
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        contiguous = np.ascontiguousarray(value)
        _feed(update, ("ndarray", value.dtype.str, value.shape))
        if value.dtype.names is not None:
            _feed(update, repr(value.dtype.descr))
        update(contiguous.reshape(-1).view(np.uint8).data if contiguous.size else b"")
    elif hasattr(kind, "__content_key__"):
        _feed(update, ("own", kind.__qualname__, value.__content_key__()))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _feed_dataclass(update, value)
    elif isinstance(value, FunctionType):
        _feed(update, ("function", _function_key(value)))
    else:
        _feed(update, ("pickle", _pickled(value)))


def _feed_dataclass(update: Callable[[Any], Any], value: Any) -> None:
    if callable(value) or getattr(value, "cpu", None) is not None:
        # A codelet: shared by very many tasks, so its digest is remembered.
        _feed(update, ("codelet", _remembered_dataclass_key(value)))
    else:
        _feed(update, _dataclass_parts(value))


@functools.lru_cache(maxsize=4096)
def _remembered_dataclass_key(value: Any) -> str:
    return content_key("", _dataclass_parts(value))


def _dataclass_parts(value: Any) -> tuple[Any, ...]:
    return (
        "dataclass",
        type(value).__module__,
        type(value).__qualname__,
        tuple(getattr(value, entry.name) for entry in dataclasses.fields(value)),
    )


def _function_key(function: FunctionType) -> str:
    """Digest of what a function does: code, defaults, closure and the globals it names."""
    if (
        function.__module__ != "__main__"
        and "<locals>" not in function.__qualname__
        and function.__closure__ is None
        and function.__name__ != "<lambda>"
    ):
        # Importable: its code stands for it; its globals come with its module.
        return content_key(
            function.__qualname__, function.__module__, _code_parts(function.__code__)
        )
    # cloudpickle's bytes depend on memo order of equal strings, so hash its parts instead.
    try:
        closure = tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError:  # a cell not filled yet
        closure = ()
    used = {
        name: function.__globals__[name]
        for name in sorted(_global_names(function.__code__))
        if name in function.__globals__
    }
    simple = {name: _shallow(value, function) for name, value in used.items()}
    return content_key(
        function.__qualname__,
        _code_parts(function.__code__),
        function.__defaults__,
        function.__kwdefaults__,
        tuple(_shallow(value, function) for value in closure),
        simple,
    )


def _shallow(value: Any, user: FunctionType) -> Any:
    """What a captured value adds to a function's digest; recursion ends at the function."""
    if value is user:
        return ("self",)
    if isinstance(value, FunctionType):
        return ("function", value.__module__, value.__qualname__, _code_parts(value.__code__))
    if isinstance(value, type) or type(value).__name__ == "module":
        return ("named", getattr(value, "__module__", ""), value.__name__)
    return value


def _global_names(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _global_names(constant)
    return names


def _code_parts(code: CodeType) -> tuple[Any, ...]:
    constants = tuple(
        _code_parts(constant)
        if isinstance(constant, CodeType)
        else ("frozenset", *sorted(map(repr, constant)))
        if isinstance(constant, frozenset)
        else repr(constant)
        for constant in code.co_consts
    )
    return ("code", code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars)


def _pickled(value: Any) -> bytes:
    try:
        pickled: bytes = cloudpickle.dumps(value)
    except Exception as error:  # pickle raises whatever the object's hooks raise
        raise SerializationError(
            f"a {type(value).__name__} can neither be hashed nor sent to another process: {error}. "
            "Functions are sent with everything they capture; open files, locks, sockets and "
            "generators must be made inside the function instead."
        ) from error
    return pickled
