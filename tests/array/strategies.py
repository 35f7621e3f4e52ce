"""Hypothesis strategies for arrays with NumPy twins: dtypes, shapes and chunkings of all kinds."""

from __future__ import annotations

import itertools
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

import agentic_ray.array as xp

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
REALS = ("float32", "float64")
COMPLEX = ("complex64", "complex128")
NUMBERS = INTEGERS + REALS + COMPLEX
EVERYTHING = ("bool", *NUMBERS)

settings.register_profile("array", max_examples=25, deadline=None)

shapes = hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)


@st.composite
def chunkings(draw: Any, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Chunk lengths for each axis."""
    result = []
    for length in shape:
        cuts = draw(st.sets(st.integers(1, length - 1), max_size=3)) if length > 1 else set()
        edges = [0, *sorted(cuts), length]
        result.append(tuple(b - a for a, b in itertools.pairwise(edges)))
    return tuple(result)


@st.composite
def values(draw: Any, dtype: str, shape: tuple[int, ...], *, small: bool = False) -> np.ndarray:
    """A NumPy array; floats include NaN and infinities unless ``small``."""
    kind = np.dtype(dtype)
    elements: Any
    if small and kind.kind in "iu":
        elements = st.integers(0 if kind.kind == "u" else -5, 5)
    elif small and kind.kind in "fc":
        elements = st.integers(-5, 5).map(float)
    else:
        elements = hnp.from_dtype(kind)
    return draw(hnp.arrays(kind, shape, elements=elements))


@st.composite
def arrays(
    draw: Any,
    dtypes: tuple[str, ...] = EVERYTHING,
    shape: Any = shapes,
    *,
    small: bool = False,
) -> tuple[xp.Array, np.ndarray]:
    """The same array, chunked and as NumPy has it."""
    found = draw(shape) if isinstance(shape, st.SearchStrategy) else shape
    array = draw(values(draw(st.sampled_from(dtypes)), found, small=small))
    return xp.asarray(array, chunks=draw(chunkings(found))), array


def same(ours: Any, theirs: Any, *, rtol: float = 0.0) -> None:
    """Equal in shape, dtype and value: exactly, or up to ``rtol`` in precision."""
    assert isinstance(ours, xp.Array)
    theirs = np.asarray(theirs)
    found = np.asarray(ours)
    assert ours.shape == theirs.shape == found.shape
    assert ours.dtype == theirs.dtype == found.dtype
    assert tuple(sum(axis) for axis in ours.chunks) == ours.shape
    if rtol and theirs.dtype.kind in "fc":
        if theirs.dtype in (np.float32, np.complex64):
            rtol = max(rtol, 1e-4)
        np.testing.assert_allclose(found, theirs, rtol=rtol, atol=rtol)
    else:
        np.testing.assert_array_equal(found, theirs)
