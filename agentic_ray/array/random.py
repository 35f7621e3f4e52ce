"""Random arrays whose numbers depend on seed and position only, never on the chunks.

A stream is cut into tiles of fixed length in C order; each tile has a Philox generator of its
own, keyed by the stream and counted by the tile (Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3", SC 2011). A chunk draws the tiles it overlaps.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import Op
from agentic_ray.array.core.program import Location
from agentic_ray.array.creation import created, shape_of
from agentic_ray.array.indexing import take

TILE = 1 << 14
"""Numbers a generator makes; part of what a seed means, so it must not change."""


def _tile(key: tuple[int, int], index: int, method: str, args: Any, dtype: Any, n: int) -> Any:
    """The first ``n`` numbers of a tile. Draws are made in order, so it is a prefix of the tile."""
    # A tile draws far fewer than the 2**64 blocks that its second counter word leaves it.
    bits = np.random.Philox(key=np.array(key, dtype=np.uint64), counter=[0, index, 0, 0])
    draw = getattr(np.random.Generator(bits), method)
    return draw(*args, size=n) if dtype is None else draw(*args, size=n, dtype=dtype)


def _runs(starts: Shape, lengths: Shape, shape: Shape) -> Iterator[tuple[int, int]]:
    """The block's elements as runs of the flattened array: (start, length)."""
    axis = len(shape)
    run = 1
    while axis > 0 and lengths[axis - 1] == shape[axis - 1]:
        axis -= 1
        run *= shape[axis]
    if axis == 0:
        yield 0, run
        return
    run *= lengths[axis - 1]
    steps = [math.prod(shape[a + 1 :]) for a in range(len(shape))]
    outer = [range(starts[a], starts[a] + lengths[a]) for a in range(axis - 1)]
    tail = starts[axis - 1] * steps[axis - 1]
    for place in itertools.product(*outer):
        yield sum(p * s for p, s in zip(place, steps, strict=False)) + tail, run


def _random_kernel(
    xp: Any,
    location: Location,
    key: tuple[int, int],
    method: str,
    args: Any,
    dtype: np.dtype[Any],
    passed: Any,
    shape: Shape,
) -> Any:
    starts, lengths = location
    out = np.empty(math.prod(lengths), dtype)
    total = math.prod(shape)
    at = 0
    index, tile = -1, np.empty(0, dtype)
    for start, length in _runs(starts, lengths, shape) if out.size else ():
        while length:
            wanted, offset = divmod(start, TILE)
            take_ = min(length, TILE - offset)
            need = min(TILE, total - wanted * TILE)
            if wanted != index:
                # A run that ends here needs the tile's beginning only; later runs may need more.
                index = wanted
                tile = _tile(key, wanted, method, args, passed, need)
            out[at : at + take_] = tile[offset : offset + take_]
            at += take_
            start += take_
            length -= take_
    return xp.asarray(out.reshape(lengths))


RANDOM = Op("random", "create", _random_kernel, weight=32)


class Generator:
    """Makes random arrays, each from a stream of its own. See `default_rng`."""

    def __init__(self, seed: Any = None) -> None:
        self._sequence = (
            seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        )
        self._counter = itertools.count()

    def spawn(self, n: int) -> list[Generator]:
        """``n`` independent generators."""
        return [Generator(child) for child in self._sequence.spawn(n)]

    def _draw(
        self,
        method: str,
        args: tuple[Any, ...],
        size: Any,
        dtype: Any,
        chunks: Any,
        device: str | None,
        *,
        passed: bool = False,
    ) -> Array:
        shape = () if size is None else shape_of(size)
        dtype = np.dtype(dtype)
        # The call's number goes into the key: later calls do not depend on earlier sizes.
        call = np.random.SeedSequence(
            self._sequence.entropy, spawn_key=(*self._sequence.spawn_key, next(self._counter))
        )
        key = tuple(int(word) for word in call.generate_state(2, np.uint64))
        params = (key, method, args, dtype, dtype.type if passed else None, shape)
        return created(RANDOM, params, shape, dtype, chunks, device)

    def random(
        self,
        size: Any = None,
        dtype: Any = np.float64,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Uniform numbers in [0, 1)."""
        return self._draw("random", (), size, dtype, chunks, device, passed=True)

    def uniform(
        self,
        low: float = 0.0,
        high: float = 1.0,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Uniform numbers in [low, high)."""
        return self._draw("uniform", (low, high), size, np.float64, chunks, device)

    def standard_normal(
        self,
        size: Any = None,
        dtype: Any = np.float64,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Normal numbers with mean 0 and standard deviation 1."""
        return self._draw("standard_normal", (), size, dtype, chunks, device, passed=True)

    def normal(
        self,
        loc: float = 0.0,
        scale: float = 1.0,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Normal numbers with mean ``loc`` and standard deviation ``scale``."""
        if scale < 0:
            raise ValueError("scale < 0")
        return self._draw("normal", (loc, scale), size, np.float64, chunks, device)

    def integers(
        self,
        low: int,
        high: int | None = None,
        size: Any = None,
        dtype: Any = np.int64,
        endpoint: bool = False,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Integers in [low, high), or in [0, low) without ``high``.

        Raises
        ------
        ValueError
            There is no integer in the range.
        """
        low, high = (0, low) if high is None else (low, high)
        low, high = operator.index(low), operator.index(high) + bool(endpoint)
        if low >= high:
            raise ValueError("low >= high")
        return self._draw("integers", (low, high), size, dtype, chunks, device, passed=True)

    def exponential(
        self,
        scale: float = 1.0,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Exponentially distributed numbers with mean ``scale``."""
        if scale < 0:
            raise ValueError("scale < 0")
        return self._draw("exponential", (scale,), size, np.float64, chunks, device)

    def poisson(
        self,
        lam: float = 1.0,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Poisson distributed integers with mean ``lam``."""
        if not lam >= 0:
            raise ValueError("lam < 0 or lam is NaN")
        return self._draw("poisson", (lam,), size, np.int64, chunks, device)

    def binomial(
        self,
        n: int,
        p: float,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """How many of ``n`` trials succeed that do so with probability ``p``."""
        if n < 0 or not 0 <= p <= 1:
            raise ValueError("n < 0, p < 0, p > 1 or p is NaN")
        return self._draw("binomial", (n, p), size, np.int64, chunks, device)

    def gamma(
        self,
        shape: float,
        scale: float = 1.0,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Gamma distributed numbers."""
        if shape < 0 or scale < 0:
            raise ValueError("shape < 0 or scale < 0")
        return self._draw("gamma", (shape, scale), size, np.float64, chunks, device)

    def permutation(self, x: Any, *, chunks: Any = "auto") -> Array:
        """``range(x)``, or the rows of an array, in random order."""
        from agentic_ray.array.creation import arange
        from agentic_ray.array.sorting import argsort

        if isinstance(x, int):
            return argsort(self.random(x, chunks=chunks)) if x else arange(0)
        node = strict_operand(x)
        order = argsort(self.random(node.shape[0], chunks=chunks))
        return take(Array(node), order, axis=0)

    def choice(
        self, a: Any, size: Any = None, replace: bool = True, *, chunks: Any = "auto"
    ) -> Array:
        """Elements of ``a``, or of ``range(a)``, drawn with equal probability.

        Raises
        ------
        ValueError
            More are wanted than there are, without replacement.
        """
        count = a if isinstance(a, int) else strict_operand(a).shape[0]
        shape = () if size is None else shape_of(size)
        if replace:
            index = self.integers(0, count, shape, chunks=chunks)
        else:
            total = math.prod(shape)
            if total > count:
                raise ValueError("cannot take a larger sample than population without replacement")
            index = self.permutation(count, chunks=chunks)[:total].reshape(shape)
        return index if isinstance(a, int) else take(Array(strict_operand(a)), index, axis=0)


def default_rng(seed: Any = None) -> Generator:
    """A generator of random arrays.

    The same seed and the same calls give the same numbers, however the arrays are cut, and
    whether they are computed on one core or on many. They are not NumPy's numbers for the seed.

    Parameters
    ----------
    seed : int, sequence of int, SeedSequence or None
        None: different numbers each time.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> a = xp.random.default_rng(0).random((4, 4), chunks=2)
    >>> b = xp.random.default_rng(0).random((4, 4), chunks=3)
    >>> bool(xp.all(a == b))
    True
    """
    return Generator(seed)
