"""Imports a user's file of workloads so that its functions can run on workers without the file.

What a workload is, is in ``workloads``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from agentic_ray.errors import AgenticRayError, WorkloadFileError
from agentic_ray.master.workloads import Registry, Workload, registry


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A file of workloads, and the SHA-256 of what it held when it was loaded."""

    path: Path
    digest: str


_loaded: dict[str, LoadedFile] = {}


def file_of(function: Any) -> LoadedFile | None:
    """The file that this process has loaded a workload's function from; None if it is of none."""
    module = str(getattr(function, "__module__", "") or "")
    return _loaded.get(module.partition(".")[0])


def load_workloads(path: str | Path, workloads: Registry = registry) -> tuple[Workload, ...]:
    """Import a Python file, or a package directory, that registers workloads.

    It gets a module name of its own, so it may be called anything and replaces no other
    module. Its functions are sent to workers by value: the file need not exist there. A package
    directory may import its own modules relatively.

    Parameters
    ----------
    path : path
        ``FILE.py``, or a directory with ``__init__.py``.

    Returns
    -------
    tuple of Workload
        Those it added or replaced.

    Raises
    ------
    WorkloadFileError
        There is no such file, it is not valid Python, it raises on import, or it registers
        nothing. Nothing stays registered then.

    Examples
    --------
    >>> import agentic_ray as ar, pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "mine.py"
    >>> text = "import agentic_ray as ar\\n@ar.workload('add-one')\\ndef f(x: int): return x + 1"
    >>> _ = file.write_text(text)
    >>> [workload.name for workload in ar.load_workloads(file)]
    ['add-one']
    >>> ar.submit("add-one", 1).result()
    2
    """
    source = Path(path)
    if source.is_dir():
        source = source / "__init__.py"
    if not source.is_file():
        raise WorkloadFileError(f"workloads {path}: there is no file {source}")
    source = source.resolve()
    name = _module_name(source)
    before = workloads.snapshot()
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    try:
        _import(source, name, path)
        added = tuple(
            made for name, made in workloads.snapshot().items() if before.get(name) is not made
        )
        if not added:
            raise WorkloadFileError(
                f"workloads {path}: it registers none; decorate a function with "
                "@agentic_ray.workload('name') or @agentic_ray.worker.on_task"
            )
    except BaseException:
        workloads.restore(before)
        for loaded in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
            del sys.modules[loaded]
        raise
    _pickle_by_value(sys.modules[name])
    _loaded[name] = LoadedFile(source, digest)
    return added


def _import(source: Path, name: str, shown: str | Path) -> None:
    package = [str(source.parent)] if source.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, source, submodule_search_locations=package)
    if spec is None or spec.loader is None:
        raise WorkloadFileError(f"workloads {shown}: not a Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise WorkloadFileError(f"workloads {shown}: {_explain(error, source)}") from error


def _module_name(source: Path) -> str:
    stem = source.parent.name if source.name == "__init__.py" else source.stem
    digest = hashlib.sha256(str(source).encode()).hexdigest()[:8]
    return f"agentic_ray_workloads_{re.sub(r'[^0-9A-Za-z_]', '_', stem)}_{digest}"


def _explain(error: BaseException, source: Path) -> str:
    """Return a sentence with the place in the user's file."""
    if isinstance(error, AgenticRayError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{error.msg} (line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(source)]
    place = f" (line {lines[-1]})" if lines else ""
    return f"it raises {type(error).__name__} on import: {error}{place}"


def _pickle_by_value(module: ModuleType) -> None:
    """Make every pickler that sends functions send this module's whole, not by name."""
    import cloudpickle
    from ray import cloudpickle as ray_cloudpickle

    cloudpickle.register_pickle_by_value(module)
    ray_cloudpickle.register_pickle_by_value(module)
