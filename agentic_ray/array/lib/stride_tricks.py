"""Namespace of ``numpy.lib.stride_tricks``, as far as it needs no strides: chunks have none."""

from typing import Any as _Any

from agentic_ray.array.names import refusal as _refusal
from agentic_ray.array.sliding import sliding_window_view

__all__ = ["sliding_window_view"]


def __getattr__(name: str) -> _Any:
    raise _refusal(__name__, name, __all__)
