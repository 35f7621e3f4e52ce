"""Plugs of this package into other libraries, which are optional: a module for each.

They are imported when they are first used.

Examples
--------
>>> import agentic_ray as ar
>>> ar.interop.register_joblib()
"""

from __future__ import annotations

import importlib
from typing import Any

_OPTIONAL = ("dask", "joblib", "mlflow", "opentelemetry", "xarray")


def __getattr__(name: str) -> Any:
    if name in _OPTIONAL:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def register_joblib() -> None:
    """Make the backend ``"agentic_ray"`` known to joblib.

    ``with joblib.parallel_config("agentic_ray"):`` then runs what scikit-learn and other libraries
    run through joblib in the worker processes of the session, by default on all its slots.

    Raises
    ------
    ModuleNotFoundError
        joblib is not installed; ``pip install "agentic-ray[joblib]"``.

    Examples
    --------
    >>> import agentic_ray as ar, joblib
    >>> ar.interop.register_joblib()
    >>> with joblib.parallel_config("agentic_ray"):
    ...     joblib.Parallel()(joblib.delayed(pow)(i, 2) for i in range(5))
    [0, 1, 4, 9, 16]
    """
    from agentic_ray.interop.joblib import register  # joblib is optional

    register()
