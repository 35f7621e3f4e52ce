"""The part of a `Generator` that draws the numbers of every distribution."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import broadcast_shapes, strict_operand
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import DType, Node
from agentic_ray.array.core.views import rechunk
from agentic_ray.array.creation import created, shape_of
from agentic_ray.array.outputs import delivered, looked_at, single_out
from agentic_ray.array.random.streams import RANDOM, Key, Options, drawn_with

_COUNTS = frozenset(
    ["binomial", "geometric", "hypergeometric", "logseries", "negative_binomial", "poisson", "zipf"]
)
"""Distributions of integers."""

_probe = np.random.default_rng(0)
"""Generator of NumPy's that checks parameters; its numbers are not used."""


class Drawing:
    """Streams of one seed: each draw has its own."""

    def __init__(self, seed: Any = None) -> None:
        if isinstance(seed, np.random.BitGenerator):
            seed = seed.seed_seq
        self._sequence = (
            seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        )
        self._counter = itertools.count()

    def _key(self) -> Key:
        # The call's number goes into the key: later calls do not depend on earlier sizes.
        call = np.random.SeedSequence(
            self._sequence.entropy, spawn_key=(*self._sequence.spawn_key, next(self._counter))
        )
        first, second = (int(word) for word in call.generate_state(2, np.uint64))
        return first, second

    def _draw(
        self,
        method: str,
        args: Sequence[Any],
        size: Any,
        chunks: Any = "auto",
        device: str | None = None,
        options: Options = (),
        dtype: Any = None,
    ) -> Array:
        """Draw numbers of NumPy's distribution ``method``, whose ``args`` may be arrays.

        Parameters
        ----------
        options : tuple of (str, value)
            More arguments of NumPy's method.
        dtype : dtype, optional
            Dtype of the result; default NumPy's.

        Raises
        ------
        ValueError, TypeError
            NumPy's errors for these parameters; for arrays when they are computed, or at the call
            if that is done in this process.
        """
        given = [_argument(arg) for arg in args]
        if any(isinstance(arg, Node) for arg in given):
            return self._draw_with(method, given, size, chunks, device, options, dtype)
        shape = () if size is None else shape_of(size)
        found = np.asarray(getattr(_probe, method)(*given, size=1, **dict(options)))
        dtype = found.dtype if dtype is None else np.dtype(dtype)
        params = (self._key(), method, tuple(given), options, dtype, shape, ())
        result = created(RANDOM, params, shape, dtype, chunks, device)
        result._is_cell = size is not None
        return result

    def _draw_with(
        self,
        method: str,
        args: Sequence[Any],
        size: Any,
        chunks: Any,
        device: str | None,
        options: Options,
        dtype: Any,
    ) -> Array:
        shapes = [arg.shape for arg in args if isinstance(arg, Node)]
        shape = _shape_for(broadcast_shapes(shapes, method), size)
        if dtype is None:
            dtype = np.int64 if method in _COUNTS else np.float64
        made = drawn_with(self._key(), method, args, [0] * len(args), options, shape, (),
                          np.dtype(dtype))  # fmt: skip
        return _cut(looked_at(Array(made)), chunks, device)

    def _filled(
        self,
        method: str,
        args: Sequence[Any],
        size: Any,
        dtype: Any,
        out: Any,
        chunks: Any,
        device: str | None,
        options: Options = (),
    ) -> Any:
        """Draw from distributions that take ``dtype=`` and ``out=``."""
        wanted = np.dtype(dtype)
        target = single_out(out)
        if target is not None:
            if target.dtype != wanted:
                raise TypeError(
                    "Supplied output array has the wrong type. Expected "
                    f"{wanted}, got {target.dtype}"
                )
            if size is not None and shape_of(size) != target.shape:
                raise ValueError("size must match out.shape when used together")
            size = target.shape
        options = (("dtype", wanted.type), *options)
        result = self._draw(method, args, size, chunks, device, options, wanted)
        return delivered(result, target)


def _argument(value: Any) -> Any:
    """Return a parameter: a number as it is, anything with axes as a node."""
    if isinstance(value, bool | int | float):
        return value
    node = strict_operand(value)
    if node.ndim:
        return node
    return value.item() if hasattr(value, "item") else value


def _shape_for(spread: Shape, size: Any) -> Shape:
    """Return the shape of draws whose parameters broadcast to ``spread``."""
    if size is None:
        return spread
    shape = shape_of(size)
    if broadcast_shapes([spread, shape]) != shape:
        raise ValueError(
            f"Output size {shape} is not compatible with broadcast dimensions of inputs {spread}."
        )
    return shape


def _cut(result: Array, chunks: Any, device: str | None) -> Array:
    """Return ``result`` in the chunks and on the device that were asked for."""
    node = result._node
    if chunks != "auto":
        node = rechunk(node, grids.normalize(chunks, node.shape, node.dtype))
    result = Array(node, is_cell=True)
    return result if device is None else result.to_device(device)


def items(
    draws: Drawing,
    method: str,
    args: tuple[Any, ...],
    size: Any,
    item: Shape,
    dtype: DType,
    chunks: Any,
    device: str | None,
    options: Options = (),
) -> Array:
    """Draw items of several numbers each, with the same parameters everywhere."""
    shape = () if size is None else shape_of(size)
    params = (draws._key(), method, args, options, dtype, shape, item)
    whole = (*shape, *item)
    if isinstance(chunks, int):
        chunks = (chunks,) * len(shape)
    elif not isinstance(chunks, tuple):
        chunks = (chunks,) * len(shape) if shape else ()
    cut = (*chunks[: len(shape)], *[-1] * len(item))
    return created(RANDOM, params, whole, dtype, cut, device)
