"""A device class whose library is not installed, whatever is installed here."""

from __future__ import annotations

import importlib

from agentic_ray.errors import NoSuitableDeviceError


class AbsentDevice:
    """Raises what `CupyDevice` raises where CuPy is not installed."""

    def __init__(self, name: str) -> None:
        try:
            importlib.import_module("no_such_library_as_this")
        except ImportError as error:
            raise NoSuitableDeviceError("cupy is not installed on this node") from error
