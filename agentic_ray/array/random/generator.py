"""The generator that users hold."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from agentic_ray.array.random.permuting import Permuting


class Generator(Permuting):
    """Maker of random arrays, each from a stream of its own. See `default_rng`.

    It has the methods of `numpy.random.Generator`, with NumPy's signatures.
    """

    @property
    def bit_generator(self) -> np.random.BitGenerator:
        """NumPy's bit generator with this seed. Drawing from it changes nothing here: arrays have
        streams of their own."""
        return np.random.Philox(self._sequence)

    def spawn(self, n_children: int) -> list[Generator]:
        """Return ``n_children`` independent generators."""
        return [Generator(child) for child in self._sequence.spawn(n_children)]

    def bytes(self, length: int) -> bytes:
        """Return random bytes."""
        found: bytes = self.integers(0, 256, operator.index(length), np.uint8).tobytes()
        return found

    def __repr__(self) -> str:
        return "Generator(agentic_ray.array)"


def default_rng(seed: Any = None) -> Generator:
    """Make a generator of random arrays.

    The same seed and the same calls give the same numbers, however the arrays are cut, and
    whether they are computed on one core or on many. They are not NumPy's numbers for the seed.

    Parameters
    ----------
    seed : int, sequence of int, SeedSequence, BitGenerator, Generator or None
        None: different numbers each time. A generator of this kind is returned as it is.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> a = xp.random.default_rng(0).random((4, 4), chunks=2)
    >>> b = xp.random.default_rng(0).random((4, 4), chunks=3)
    >>> bool(xp.all(a == b))
    True
    """
    if isinstance(seed, Generator):
        return seed
    if isinstance(seed, np.random.Generator):
        seed = seed.bit_generator
    return Generator(seed)
