"""From a kernel's source to a function: loaded from disk, or compiled by numba and kept there.

numba's own cache would need a source file, an index and a file for each function; it trusts what
it finds, and never removes any. So its compiled code is stored here as one value.
"""

from __future__ import annotations

import functools
import logging
import pickle
import platform
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from agentic_ray.array.core.kernel_store import KernelStore
from agentic_ray.config import cache_directory
from agentic_ray.graph import content_key

_logger = logging.getLogger("agentic_ray")
_warned: set[str] = set()


def warn_once(what: str, text: str) -> None:
    """Log ``text``, unless something about ``what`` was logged before by this process."""
    if what not in _warned:
        _warned.add(what)
        _logger.warning("%s: %s (said once)", what, text)


def build(source: str) -> Callable[..., Any]:
    """The function ``ENTRY`` of a module, compiled for ``SIGNATURE`` alone.

    Parameters
    ----------
    source : str
        As `kernel_source.kernel_source` makes it.

    Raises
    ------
    Exception
        numba cannot compile it, and raises what it likes.
    """
    name = _name(source)
    store = KernelStore(
        cache_directory() / "kernels", functools.partial(warn_once, "kernels are not kept on disk")
    )
    module = types.ModuleType(name)
    exec(compile(source, f"<{name}>", "exec"), vars(module))
    entry: Any = module.ENTRY
    sys.modules[name] = module  # numba looks for it when it writes or reads code
    try:
        content = store.read(name)
        if content is None or not _load(entry, content, name):
            entry.compile(module.SIGNATURE)
            content = _dump(entry)
            if content is not None:
                store.write(name, content)
    finally:
        del sys.modules[name]
    entry.disable_compile()  # other arguments are an error, not a reason to compile in a call
    function: Callable[..., Any] = entry
    return function


@functools.cache
def _surroundings() -> tuple[Any, ...]:
    """All but the source that machine code depends on."""
    import llvmlite
    import numba
    from numba.core.registry import cpu_target

    lanes = Path(__file__).with_name("lanes.py").read_text()  # compiled into what calls it
    processor = cpu_target.target_context.codegen().magic_tuple()
    versions = (numba.__version__, llvmlite.__version__, np.__version__)
    return lanes, processor, versions, platform.python_version(), sys.implementation.cache_tag


def _name(source: str) -> str:
    return content_key("kernel", source, _surroundings()).replace("-", "_")


def _dump(entry: Any) -> bytes | None:
    """The machine code of a function that was compiled for one signature; None if this numba does
    not give it."""
    from numba.core import serialize

    (result,) = entry.overloads.values()
    try:
        content: bytes = serialize.dumps(result._reduce())  # type: ignore[no-untyped-call]
    except Exception as error:  # what numba keeps there is its own, and may change
        warn_once("kernels are not kept on disk", f"{type(error).__name__}: {error}")
        return None
    return content


def _load(entry: Any, content: bytes, name: str) -> bool:
    """Give a function the machine code of `_dump`."""
    from numba.core.compiler import CompileResult

    target = entry.targetctx
    target.refresh()
    try:
        parts = pickle.loads(content)
        result = CompileResult._rebuild(target, *parts)  # type: ignore[no-untyped-call]
        target.insert_user_function(result.entry_point, result.fndesc, [result.library])
        entry.add_overload(result)
    except Exception as error:  # of another kind of numba after all; it is compiled then
        _logger.info("%s is compiled anew: %s: %s", name, type(error).__name__, error)
        return False
    return True
