"""xarray's lazy arrays as sources that are read chunk by chunk."""

from __future__ import annotations

import pickle
import uuid
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import numpy as np

from agentic_ray.array.core.chunks import Chunks, Shape
from agentic_ray.array.core.node import DType, NDArray
from agentic_ray.array.io.reading import Region

_SENT_BYTES = 1 << 20
"""Most bytes sent with each read; an object that pickles to more holds the data itself."""


@dataclass(frozen=True, slots=True, eq=False)
class LazySource:
    """An array that is read by indexing it, such as a variable of a file that xarray opened.

    Parameters
    ----------
    data : array_like
        Array with ``shape``, ``dtype`` and indexing by slices; it can be pickled.
    grain : Chunks
        Chunks it is read in. They are joined, never cut: whoever opened the file chose them by how
        it is stored.
    """

    data: Any
    grain: Chunks
    opening: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Identifier that differs for each opening: a file may have been written to since the last."""

    def __content_key__(self) -> str:
        return f"xarray-{self.opening}"

    @property
    def shape(self) -> Shape:
        return tuple(self.data.shape)

    @property
    def dtype(self) -> DType:
        found: DType = np.dtype(self.data.dtype)
        return found.newbyteorder("=")

    def read(self, region: Region) -> NDArray:
        return np.asarray(self.data[region])


class _TooMuchError(Exception):
    pass


def is_sendable(data: Any) -> bool:
    """Whether ``data`` can be pickled without most of its content: as the name of a file, say, and
    not as an open file or as its content."""
    size = 0

    def count(buffer: pickle.PickleBuffer) -> bool:
        nonlocal size
        size += buffer.raw().nbytes
        if size > _SENT_BYTES:
            raise _TooMuchError
        return False

    try:
        text = cloudpickle.dumps(data, protocol=5, buffer_callback=count)
    except Exception:  # any error of a store that is open in this process only
        return False
    return len(text) + size <= _SENT_BYTES
