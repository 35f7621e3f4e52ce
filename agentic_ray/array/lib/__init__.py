"""Namespace of ``numpy.lib``, as far as it is about arrays: `stride_tricks`."""

from typing import Any as _Any

from agentic_ray.array.lib import stride_tricks
from agentic_ray.array.names import refusal as _refusal

__all__ = ["stride_tricks"]


def __getattr__(name: str) -> _Any:
    raise _refusal(__name__, name, __all__)
