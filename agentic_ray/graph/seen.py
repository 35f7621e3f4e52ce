"""Objects that a function sees outside itself: globals and attributes of modules, as its code names
them.

Also decides which modules are installed libraries: their functions are known by name, all other
functions by their content. Pure.
"""

from __future__ import annotations

import dis
import functools
import itertools
import sys
import sysconfig
from collections import deque
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

_ALWAYS = frozenset({"agentic_ray", "cloudpickle", "ray"})
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def is_library(module: str | None) -> bool:
    """Whether a module comes with Python, or with an installed package (this one among them).

    Modules of the user's own may change while the program runs; libraries count as the same in all
    its processes.
    """
    if not module or module == "__main__":
        return False
    root = module.partition(".")[0]
    if root in _ALWAYS or root in sys.stdlib_module_names:
        return True
    found = sys.modules.get(module)
    if found is None:
        return False
    file = getattr(found, "__file__", None)
    if file is None:  # built in, or a namespace, or made by hand
        return getattr(found, "__spec__", None) is not None
    return _is_installed(file, module.count("."))


@functools.lru_cache(maxsize=4096)
def _is_installed(file: str, depth: int) -> bool:
    """Whether a module's file is where packages are installed; it lies ``depth`` folders deep in a
    package."""
    path = Path(file)
    if not _INSTALLED.isdisjoint(path.parts):
        return True
    if any(path.is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")):
        return True
    above = depth + (path.stem == "__init__")
    return above < len(path.parents) and _holds_distributions(path.parents[above])


@functools.lru_cache(maxsize=256)
def _holds_distributions(folder: Path) -> bool:
    """Whether packages were installed there, as ``pip install --target`` does."""
    return next(folder.glob("*.dist-info"), None) is not None


def named_in_library(value: Any) -> bool:
    """Whether a function or class is found in a library under its own name.

    Such an object is the same in every process; its content need not be looked into.
    """
    if isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, ModuleType | None):
        return False  # bound to a value, as ``[].append`` is
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return _is_ufunc_of_library(value)
    if not is_library(module):
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


def _is_ufunc_of_library(value: Any) -> bool:
    """Whether a value is a library's ufunc: ufuncs name no module in some versions of NumPy."""
    name = getattr(value, "__name__", None)
    return isinstance(name, str) and getattr(sys.modules.get("numpy"), name, None) is value


@functools.lru_cache(maxsize=1024)
def global_names(code: CodeType) -> tuple[str, ...]:
    """Return the names of globals that the code, or a function defined in it, reads; sorted."""
    names = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.update(global_names(constant))
    return tuple(sorted(names))


@functools.lru_cache(maxsize=1024)
def _all_names(code: CodeType) -> frozenset[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _all_names(constant)
    return frozenset(names)


def attributes_seen(function: FunctionType, module: ModuleType) -> dict[str, Any]:
    """Return the attributes of a module that the function may read: each name of its code that the
    module has, sorted."""
    inside = vars(module)
    return {name: inside[name] for name in sorted(_all_names(function.__code__)) if name in inside}


_ADDING = frozenset({"append", "appendleft", "extend", "extendleft", "add", "insert"})
_COLLECTIONS = (list, set, deque)


@functools.lru_cache(maxsize=1024)
def _added_to(code: CodeType) -> frozenset[str]:
    """Return the globals that the code, with the functions defined in it, uses for nothing but
    methods that add to a collection and return nothing."""
    added: set[str] = set()
    otherwise: set[str] = set()
    steps = [
        step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "PUSH_NULL")
    ]
    for step, following in itertools.zip_longest(steps, steps[1:]):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            adds = (
                following is not None
                and following.opname in ("LOAD_METHOD", "LOAD_ATTR")
                and following.argval in _ADDING
            )
            (added if adds else otherwise).add(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = _added_to(constant)
            added |= inner
            otherwise.update(set(global_names(constant)) - inner)
    return frozenset(added - otherwise)


def globals_read(function: FunctionType) -> dict[str, Any]:
    """Return `globals_seen` without lists, sets and deques that the function only adds to, as a log
    of its calls: their content makes no difference to it."""
    added = _added_to(function.__code__)
    return {
        name: value
        for name, value in globals_seen(function).items()
        if not (name in added and type(value) in _COLLECTIONS)
    }


def globals_seen(function: FunctionType) -> dict[str, Any]:
    """Return the globals that the function's code names, by name, in the order of the names."""
    known = function.__globals__
    return {name: known[name] for name in global_names(function.__code__) if name in known}
