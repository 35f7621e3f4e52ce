"""Plugs for other libraries, loaded when an array meets one of them.

xarray loads its chunk managers when it first needs one. Some of its steps before that give wrong
results or errors without the plug (`agentic_ray.interop.indexing`). The plug is found as xarray
finds it, so that nothing here knows of it.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

_GROUP, _NAME = "xarray.chunkmanagers", "agentic_ray"
_met: list[str] = []


def meet_xarray() -> None:
    """Load the plug for xarray, if xarray is imported and this is the first array it looks at."""
    if _met or "xarray" not in sys.modules:
        return
    _met.append(_GROUP)  # first: loading the plug asks arrays again
    for point in entry_points(group=_GROUP, name=_NAME):
        point.load()
