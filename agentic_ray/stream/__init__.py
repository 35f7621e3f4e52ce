"""Streams: windows of event time over events as they come, with exactly-once state.

The module is called to begin one. Tables and streams are described alike, and the same rows give
the same windows, whether they are in a file or come one by one.

>>> import agentic_ray as ar
>>> payments = [{"time": 0.2, "card": "a", "amount": 5}, {"time": 0.9, "card": "a", "amount": 7},
...             {"time": 1.5, "card": "b", "amount": 1}]
>>> windows = (ar.stream(payments).key_by("card").window(ar.stream.tumbling(1))
...            .aggregate(total=("amount", "sum")).to_arrow())
>>> windows.to_pylist()[0]
{'window_start': 0.0, 'window_end': 1.0, 'card': 'a', 'total': 12}
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from agentic_ray.stream.front import Stream, StreamReport, stream
from agentic_ray.stream.sources import file, folder, socket
from agentic_ray.stream.windows import session, sliding, tumbling

__all__ = [
    "Stream",
    "StreamReport",
    "file",
    "folder",
    "session",
    "sliding",
    "socket",
    "stream",
    "tumbling",
]


class _Callable(ModuleType):
    """This module, which can be called: `ar.stream(source)` beside `ar.stream.tumbling(1)`."""

    def __call__(self, source: Any, **options: Any) -> Stream:
        return stream(source, **options)


sys.modules[__name__].__class__ = _Callable
