"""Users' functions as they were when they were given: `capture` and `Captured`.

A function sees more than its code: globals, closures, attributes of the object it is bound to, all
of which may change later. `capture` pickles it with all of that at once; a later call, here or on
an executor, calls the function loaded from those bytes. Equal bytes are one `Captured`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
import pickle
import sys
import threading
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias, TypeGuard

import cloudpickle
from blake3 import blake3
from cloudpickle import cloudpickle as reducers

from agentic_ray.errors import InvalidTypeError, SerializationError
from agentic_ray.graph.keys import class_code, class_content, content_key
from agentic_ray.graph.seen import attributes_seen, globals_seen, is_library, named_in_library

MODULE_BYTES = 64 << 20
"""A function of an imported module that sees more than this is sent by its name: importing the
module where the function runs may be cheaper, and such functions are in modules that hold large
models."""

LOOKED_INTO_BYTES = 1 << 20
"""A function that holds more than this is known by its bytes, which may differ in another run."""

Packed: TypeAlias = tuple[bytes, tuple[bytes | bytearray, ...]]
"""A pickle, and the memory of the arrays in it: bytes where they may not be written to."""


class Captured:
    """A function as it was when it was captured. Call it like the function.

    Attributes
    ----------
    digest : str
        Name of the bytes it was pickled to: equal digests are equal work.
    keywords : frozenset of str
        Names of the parameters that can be given by keyword.
    size_bytes : int
        Size of the pickle and of the arrays it holds.
    """

    def __init__(
        self,
        names: tuple[str, str, str],
        digest: str,
        keywords: frozenset[str],
        packed: Packed | None,
        function: Callable[..., Any] | None = None,
    ) -> None:
        self.__module__, self.__qualname__, self.__name__ = names
        self.digest = digest
        self.keywords = keywords
        self.size_bytes = 0 if packed is None else len(packed[0]) + sum(map(len, packed[1]))
        self._packed = packed
        self._function = function
        self._content = ""
        self._lock = threading.Lock()

    @property
    def function(self) -> Callable[..., Any]:
        """Function itself, loaded once in this process."""
        found = self._function
        if found is None:
            with self._lock:
                if self._function is None:
                    assert self._packed is not None
                    data, buffers = self._packed
                    # Copies: the function may write to its arrays; the bytes that are sent must not
                    # change.
                    own = [b if type(b) is bytes else bytearray(b) for b in buffers]
                    self._function = _load(data, own)
                found = self._function
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __content_key__(self) -> str:
        """Name the function's behaviour, so that the name is the same in another run of the
        program.

        A function that holds much, which would have to be loaded here, or that cannot be looked
        into, is named by its bytes.
        """
        if not self._content:
            self._content = self.digest
            if self.size_bytes <= LOOKED_INTO_BYTES:
                with contextlib.suppress(Exception):  # unpickling failed: it fails later too
                    self._content = content_key("captured", self.function)
        return self._content

    def __reduce__(self) -> tuple[Any, ...]:
        names = (self.__module__, self.__qualname__, self.__name__)
        if self._packed is None:
            again = capture(self.function)
            assert isinstance(again, Captured)
            packed = again._packed
        else:
            packed = self._packed
        assert packed is not None
        data, buffers = packed
        share_trackers()
        return _arrived, (names, self.digest, self.keywords, data, buffers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Captured) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<captured {self.__qualname__}>"


_known: weakref.WeakValueDictionary[str, Captured] = weakref.WeakValueDictionary()
_known_lock = threading.Lock()
_recent: deque[Captured] = deque(maxlen=64)
"""Small functions stay loaded for a while, since some are given again and again."""
_RECENT_BYTES = 1 << 14


def capture(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` as it is now, with everything that it sees.

    Functions of installed libraries are returned as they are: they are the same everywhere. Others
    are pickled; functions of the user's imported modules too, with the globals of their module, and
    attributes of the user's other modules, that their code names. Where those cannot be pickled, or
    are very large, the module is imported where the function runs instead.

    Parameters
    ----------
    function : callable

    Returns
    -------
    callable
        A `Captured`, or the function of a library.

    Raises
    ------
    InvalidTypeError
        ``function`` cannot be called.
    SerializationError
        ``function``, or something it holds, cannot be pickled.
    """
    if isinstance(function, Captured) or named_in_library(function):
        return function
    if not callable(function):
        raise InvalidTypeError(f"expected a function, not {type(function).__name__}")
    name = name_of(function)
    bound = _as_method(function)
    try:
        data, views = _pickled(bound, by_value=True)
    except Exception:  # pickle raises anything that the objects' hooks raise
        try:  # perhaps only things it sees in modules cannot be pickled
            data, views = _pickled(function, by_value=False)
        except Exception as error:
            raise SerializationError(_refused(name, error)) from error
    hasher = blake3(data)
    for view in views:
        hasher.update(b"%d:" % view.nbytes)
        hasher.update(view)
    digest = hasher.hexdigest(length=16)
    with _known_lock:
        found = _known.get(digest)
        if found is None or found._packed is None:
            kept = tuple(bytes(view) if view.readonly else bytearray(view) for view in views)
            names = (str(getattr(function, "__module__", None) or "__main__"), name, name)
            found = Captured(names, digest, _keywords(function), (data, kept))
            _known[digest] = found
            if found.size_bytes <= _RECENT_BYTES:
                _recent.append(found)
    return found


def loaded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function inside a `Captured`; any other as it is. For loops over many elements."""
    return function.function if isinstance(function, Captured) else function


def name_of(function: Any) -> str:
    """Return a function's name, for people."""
    function = _innermost(function) if not hasattr(function, "__name__") else function
    found = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    return found if isinstance(found, str) else type(function).__qualname__


def _refused(name: str, error: Exception) -> str:
    return (
        f"{name} cannot be sent to another process: {error}. Functions are sent with everything "
        "they see; open files, locks, sockets and generators must be made inside the function "
        "instead."
    )


def _keywords(function: Callable[..., Any]) -> frozenset[str]:
    if type(function) is FunctionType and not function.__dict__:  # the same, in a tenth of the time
        code = function.__code__
        return frozenset(
            code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
        )
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # many builtins have no signature
        return frozenset()
    return frozenset(
        p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    )


_loading = threading.RLock()
"""Only one thread loads at a time: a half-made class must not be taken for another."""


def _load(data: bytes, buffers: Sequence[bytes | bytearray]) -> Callable[..., Any]:
    """Load a function; raises anything that the objects' hooks raise."""
    with _loading:
        function: Callable[..., Any] = pickle.loads(data, buffers=buffers)
    return function


def _arrived(
    names: tuple[str, str, str],
    digest: str,
    keywords: frozenset[str],
    data: bytes,
    buffers: Sequence[bytes | bytearray],
) -> Captured:
    """Make a `Captured` from bytes that were sent here, or return the one that is here already."""
    with _known_lock:
        found = _known.get(digest)
    if found is not None:
        return found
    # Its arrays lie in the received bytes, which nobody else has.
    made = Captured(names, digest, keywords, None, _load(data, buffers))
    with _known_lock:
        return _known.setdefault(digest, made)


# --- pickling ----------------------------------------------------------------------------


def _innermost(function: Any) -> Any:
    """Return the function that is called in the end, inside methods, partials and this package's
    own wrappers."""
    while True:
        if isinstance(function, MethodType):
            inner: Any = function.__func__
        elif isinstance(function, functools.partial):
            inner = function.func
        elif type(function).__module__.startswith("agentic_ray."):
            inner = getattr(function, "function", None)
        else:
            return function
        if inner is None:
            return function
        function = inner


def _as_method(function: Any) -> Any:
    """Return an object of a user's class as its bound ``__call__``, which is sent by value."""
    kind = type(function)
    if isinstance(function, type) or is_library(kind.__module__):
        return function
    method = next((vars(k)["__call__"] for k in kind.__mro__ if "__call__" in vars(k)), None)
    return MethodType(method, function) if isinstance(method, FunctionType) else function


def _pickled(function: Any, *, by_value: bool) -> tuple[bytes, list[memoryview]]:
    """Return the pickle and the memory of the arrays in it, which is still the arrays' own."""
    file = _Limited()
    buffers: list[pickle.PickleBuffer] = []
    pickler = _Pickler(file, by_value, buffers.append)
    pickler.dump(function)
    views = [buffer.raw() for buffer in buffers]
    file.check(sum(view.nbytes for view in views))
    return file.getvalue(), views


class _Limited(io.BytesIO):
    """Buffer that, once it is told to, refuses to grow beyond `MODULE_BYTES`."""

    is_limited = False

    def write(self, data: Any) -> int:
        written = super().write(data)
        self.check()
        return written

    def check(self, more: int = 0) -> None:
        if self.is_limited and self.tell() + more > MODULE_BYTES:
            raise SerializationError(f"modules hold more than {MODULE_BYTES:,} bytes that it sees")


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle, with some differences.

    Code keeps the name of its file, and numba's functions are compiled anew. Functions of the
    user's modules are written with the objects they see, like those of the main script; the modules
    as views that hold the attributes that the function names; and their classes so that they are
    refused where the module is another one. A class of the main script is only taken for a known
    one of the same name if it is still the same: cloudpickle would change the attributes of the
    known one, also in the process that defined it.
    """

    def __init__(
        self, file: _Limited, by_value: bool, keep: Callable[[pickle.PickleBuffer], Any]
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=keep)
        self._file = file
        self._by_value = by_value
        self._views: dict[tuple[str, CodeType], _View] = {}

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, FunctionType):
            if self._by_value and not named_in_library(value):
                return self._function(value)
        elif isinstance(value, type):
            made = super().reducer_override(value)
            if _is_by_value(made):
                return _known_class(value, made)
            if made is NotImplemented and self._by_value and not is_library(value.__module__):
                return _of_module, (value.__module__, value.__qualname__, class_code(value))
            return made
        elif isinstance(value, functools._lru_cache_wrapper) and not named_in_library(value):
            return _cached, (value.__wrapped__, value.cache_parameters())
        elif isinstance(value, CodeType):
            made = reducers._code_reduce(value)
            # cloudpickle leaves out the file, which tracebacks must name.
            args = [value.co_filename if part == "<dynamic-code>" else part for part in made[1]]
            return (made[0], tuple(args), *made[2:])
        elif _is_jitted(value):
            signatures = None if value._can_compile else value.nopython_signatures
            return _jitted, (value.py_func, dict(value.targetoptions), signatures)
        return super().reducer_override(value)

    def _function(self, function: FunctionType) -> Any:
        made = self._dynamic_function_reduce(function)
        if reducers._should_pickle_by_reference(function):
            self._file.is_limited = True  # it is a module's, and could be sent by its name
        state, slots = made[2]
        for name, seen in globals_seen(function).items():
            if _is_users(seen):
                slots["__globals__"][name] = self._view(function, seen)
        if function.__closure__:
            slots["__closure__"] = tuple(self._cell(function, c) for c in function.__closure__)
        return (*made[:2], (state, slots), *made[3:])

    def _cell(self, function: FunctionType, cell: CellType) -> CellType:
        try:
            seen = cell.cell_contents
        except ValueError:  # not filled yet
            return cell
        return CellType(self._view(function, seen)) if _is_users(seen) else cell

    def _view(self, function: FunctionType, module: ModuleType) -> _View:
        """Return the view with the attributes that ``function`` names of ``module`` and of the
        modules in it."""
        key = (module.__name__, function.__code__)
        found = self._views.get(key)
        if found is None:
            self._file.is_limited = True
            attributes = attributes_seen(function, module)
            found = self._views[key] = _View(module.__name__, attributes)
            for name, seen in attributes.items():
                if _is_users(seen):
                    attributes[name] = self._view(function, seen)
        return found


def _is_users(value: Any) -> TypeGuard[ModuleType]:
    """Whether a value is a module of the user's."""
    return (
        isinstance(value, ModuleType)
        and value.__name__ != "__main__"
        and not isinstance(value, ModuleView)
        and not is_library(value.__name__)
    )


def _is_by_value(made: Any) -> bool:
    """Whether cloudpickle wrote a class by value, with everything in it."""
    return isinstance(made, tuple) and made[0] in (
        reducers._make_skeleton_class,
        reducers._make_skeleton_enum,
    )


class _View:
    """Stand-in for a user's module while a function is pickled; becomes a `ModuleView`."""

    def __init__(self, name: str, attributes: dict[str, Any]) -> None:
        self._name = name
        self._attributes = attributes

    def __reduce__(self) -> tuple[Any, ...]:
        return ModuleView, (self._name,), (None, self._attributes)


class ModuleView(ModuleType):
    """A user's module with some of its attributes as they were when a function was captured; the
    others are those of the module as this process imports it."""

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        vars(self).update(state[1])

    def __reduce__(self) -> tuple[Any, ...]:
        held = {name: value for name, value in vars(self).items() if not name.startswith("__")}
        return ModuleView, (self.__name__,), (None, held)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(self.__name__), name)


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Callable[..., Any]:
    decorate: Callable[..., Callable[..., Any]] = functools.lru_cache(**parameters)
    return decorate(function)


def _is_jitted(value: Any) -> bool:
    """Whether numba compiles this function. Pickled as it is, such a function has an identity of
    its own in the process that loads it, with the globals of its first call."""
    dispatcher = sys.modules.get("numba.core.dispatcher")
    return dispatcher is not None and isinstance(value, dispatcher.Dispatcher)


def _jitted(function: Callable[..., Any], options: dict[str, Any], signatures: Any) -> Any:
    from numba import jit  # if it came from numba there is numba, but only then

    return jit(signatures, **options)(function)


def _of_module(module: str, name: str, code: str) -> type:
    """Return a class of a user's module; raise if it differs from the class that was captured."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if class_code(found) != code:
        raise SerializationError(
            f"class {name} of module {module} is another one here than where a function that uses "
            "it was captured: the module was changed, or loaded again. Start the session again "
            "(agentic_ray.shutdown()), or define the class in the main script"
        )
    kind: type = found
    return kind


# --- classes of the main script ----------------------------------------------------------


def _known_class(kind: type, made: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pickle ``kind`` as cloudpickle does, but with its content's digest, and so that a class that
    is known already stays as it is."""
    constructor, args, state = made[:3]
    args = (*args[:-2], None, args[-1])  # the id is given to `_class_of` instead
    return (
        _class_of,
        (_tracker_id(kind), _content(kind), constructor, args),
        state,
        None,
        None,
        (_complete),
    )


def _content(kind: type) -> str:
    """Return the digest of everything in a class; empty if it cannot be told."""
    try:
        return class_content(kind)
    except SerializationError:
        return ""


_complete_classes: weakref.WeakSet[type] = weakref.WeakSet()
_classes: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()


def _trackers() -> list[Any]:
    """Return the modules that know classes by an id: cloudpickle, and Ray's copy if it is loaded,
    whose ids count first, since values are sent with it."""
    ray = sys.modules.get("ray.cloudpickle.cloudpickle")
    return [reducers] if ray is None else [ray, reducers]


def _tracker_id(kind: type) -> str:
    found = None
    for module in _trackers():
        with module._DYNAMIC_CLASS_TRACKER_LOCK:
            found = found or module._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(kind)
    found = found or uuid.uuid4().hex
    _track(kind, found)
    return found


def _track(kind: type, tracker: str) -> None:
    _classes[kind] = tracker
    for module in _trackers():
        with module._DYNAMIC_CLASS_TRACKER_LOCK:
            module._DYNAMIC_CLASS_TRACKER_BY_CLASS[kind] = tracker
            module._DYNAMIC_CLASS_TRACKER_BY_ID[tracker] = kind


def share_trackers() -> None:
    """Tell Ray's cloudpickle the classes that were captured before it was loaded, so that instances
    which come back are of the caller's own classes."""
    for kind, tracker in list(_classes.items()):
        for module in _trackers():
            with module._DYNAMIC_CLASS_TRACKER_LOCK:
                if module._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(kind) is None:
                    module._DYNAMIC_CLASS_TRACKER_BY_CLASS[kind] = tracker
                    module._DYNAMIC_CLASS_TRACKER_BY_ID[tracker] = kind


def _class_of(
    tracker: str, content: str, constructor: Callable[..., type], args: tuple[Any, ...]
) -> type:
    """Return the class that is known by this id, if it has this content; else a new one."""
    for wanted in (tracker, f"{tracker}-{content}"):
        known: type | None = None
        for module in _trackers():
            known = known or module._DYNAMIC_CLASS_TRACKER_BY_ID.get(wanted)
        if known is None:
            made = constructor(*args)
            _track(made, wanted)
            return made
        if _content(known) == content:
            _complete_classes.add(known)
            return known
    raise SerializationError(f"class {known} was changed in this process after it had been sent")


def _complete(kind: type, state: Any) -> None:
    if kind not in _complete_classes:
        reducers._class_setstate(kind, state)
        _complete_classes.add(kind)
