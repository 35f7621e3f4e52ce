"""The product of a tall matrix's transpose with itself, and the sums of its columns on the way.

BLAS's own routine for it, `syrk`, computes half of the entries, but of few columns it makes less
than a third of the speed that a processor has. OpenBLAS's kernels for AVX-512 multiply small
matrices where they lie, without packing them first, and then it pays to ask for the upper half in
panels, 16 columns with all that are not to their left, over some hundred rows at a time: of 50
columns that takes a quarter less time than `syrk`. With other kernels panels take longer.

The bits depend on rows, columns and the processor's BLAS, not on whether the loop over the small
products runs in NumPy or compiled, which begins to be used when it is ready.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from agentic_ray.array.core.node import BLOCK_ELEMENTS, NDArray
from agentic_ray.array.linalg.columns import dagger

_QUICK_KERNELS = frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})
_COLUMNS = range(12, 65)
_SMALL = 600_000
"""Multiplications of one small product; from 10^6 on OpenBLAS packs."""
_AT_ONCE = 8
"""Small products in one call: threads that return to Python wait for each other."""
_WORTH_ELEMENTS = 1 << 20
"""Of a matrix that compiling, some seconds once a machine, is begun for."""
_logger = logging.getLogger("agentic_ray")


def self_product(xp: Any, x: Any) -> Any:
    """``x.T @ x``, conjugated on the left: of a matrix of shape (rows, columns) one of shape
    (columns, columns)."""
    if _in_panels(xp, x):
        return _panels(x, None, sums=False)[0]
    return xp.matmul(dagger(xp, x), x)


def product_and_sums(xp: Any, x: Any, shift: Any) -> tuple[Any, Any]:
    """The product with itself of ``x - shift``, a real matrix, and the sums of its columns.

    Without a ``shift`` nothing is subtracted.
    """
    if _in_panels(xp, x):
        return _panels(x, shift, sums=True)
    length, columns = x.shape
    at_once = 2 * BLOCK_ELEMENTS // columns if xp is np else length
    ones = xp.ones(min(length, at_once), x.dtype)
    scratch = None if shift is None else xp.empty((ones.shape[0], columns), x.dtype)
    total = xp.zeros((columns + 1, columns), x.dtype)
    # One buffer and one total for all cache blocks: what is not allocated anew costs no page
    # faults, and threads wait less for each other.
    own = xp.empty_like(total)
    for start in range(0, length, at_once):
        part = x[start : start + at_once]
        if scratch is not None:
            part = xp.subtract(part, shift, out=scratch[: part.shape[0]])
        # The sums first: they fetch what the product reuses.
        total[columns] += xp.matmul(ones[: part.shape[0]], part, out=own[columns])
        total[:columns] += xp.matmul(part.T, part, out=own[:columns])
    return total[:columns], total[columns]


def _in_panels(xp: Any, x: Any) -> bool:
    if xp is not np or x.shape[1] not in _COLUMNS or x.dtype not in (np.float64, np.float32):
        return False
    return bool(x.flags.c_contiguous) and _small_products_are_quick()


@functools.cache
def _small_products_are_quick() -> bool:
    """Whether NumPy's BLAS is an OpenBLAS that uses such kernels on this processor."""
    return any(
        library["internal_api"] == "openblas" and library.get("architecture") in _QUICK_KERNELS
        for library in threadpool_info()
    )


@dataclass(frozen=True, slots=True)
class Panel:
    """Columns ``begin`` to ``end``, to be multiplied with those from ``start`` on.

    ``start`` is ``begin`` but for the last panel, where it is one less: to a matrix and its own
    transpose NumPy would apply `syrk`. ``at`` is where its products begin among those of all.
    """

    begin: int
    end: int
    start: int
    at: int
    size: int

    @property
    def stop(self) -> int:
        """Where its products end among those of all."""
        return self.at + self.size


def cut(columns: int) -> tuple[Panel, ...]:
    """At least two panels."""
    width = 16 if columns >= 32 else 8
    more = range(columns - width * (max(2, columns // width) - 1), columns + 1, width)
    panels: list[Panel] = []
    at = 0
    for begin, end in itertools.pairwise([0, *more]):
        start = begin - (end == columns)
        panels.append(Panel(begin, end, start, at, (end - begin) * (columns - start)))
        at = panels[-1].stop
    return tuple(panels)


def _panels(x: NDArray, shift: NDArray | None, *, sums: bool) -> tuple[NDArray, NDArray]:
    length, columns = x.shape
    panels = cut(columns)
    rows = _SMALL // (max(panel.end - panel.begin for panel in panels) * columns)
    calls = length // (rows * _AT_ONCE)
    stop = calls * rows * _AT_ONCE
    add_up = _compiled(x) or summed
    total = np.zeros(panels[-1].stop + columns * sums, x.dtype)
    add_up(x[:stop].reshape(calls, _AT_ONCE, rows, columns), shift, panels, total)
    if stop < length:
        add_up(x[stop:].reshape(1, 1, length - stop, columns), shift, panels, total)
    product = np.zeros((columns, columns), x.dtype)
    for panel in panels:
        made = total[panel.at : panel.stop].reshape(-1, columns - panel.start)
        product[panel.begin : panel.end, panel.start :] = made
    return np.triu(product) + np.triu(product, 1).T, total[panels[-1].stop :]


def summed(
    blocks: NDArray, shift: NDArray | None, panels: tuple[Panel, ...], total: NDArray
) -> None:
    """Add to ``total`` what ``blocks``, of shape (calls, products of one call, rows, columns), come
    to: the products of the panels and then, where there is room, the sums of the columns."""
    calls, at_once, _, columns = blocks.shape
    source = blocks if shift is None else np.empty((1, *blocks.shape[1:]), blocks.dtype)
    # All results of a call lie together, so that one addition adds them all; and what needs no
    # array of the call is made before: while one thread is in Python, others wait.
    made = np.empty((at_once, total.size), blocks.dtype)
    own = np.empty_like(total)
    sums = made[:, panels[-1].stop :]
    work: list[tuple[NDArray, NDArray, NDArray]] = []
    for panel in panels:
        left = source[..., panel.begin : panel.end].swapaxes(2, 3)
        into = made[:, panel.at : panel.stop].reshape(at_once, -1, columns - panel.start)
        work.append((left, source[..., panel.start :], into))
    for call in range(calls):
        here = call
        if shift is not None:
            here = 0
            np.subtract(blocks[call], shift, out=source[0])
        if sums.size:
            np.add.reduce(source[here], axis=1, out=sums)
        for left, right, into in work:
            np.matmul(left[here], right[here], out=into)
        total += np.add.reduce(made, axis=0, out=own)


Summing = Callable[[NDArray, NDArray | None, tuple[Panel, ...], NDArray], None]


@functools.cache
def _started(dtype: str) -> list[Summing]:
    """Where a compiled form of `summed` will be, when it is."""
    ready: list[Summing] = []

    def prepare() -> None:
        try:
            from agentic_ray.array.linalg import compiled_selfproduct

            found = compiled_selfproduct.summing(np.dtype(dtype))
            if found is not None and _alike(found, dtype):
                ready.append(found)
        except Exception as error:  # numba raises what it likes; NumPy does the work then
            _logger.warning("products of columns stay in NumPy: %s", error)

    if importlib.util.find_spec("numba") is not None:
        threading.Thread(target=prepare, name="compile-kernel", daemon=True).start()
    return ready


def _compiled(x: NDArray) -> Summing | None:
    if x.size < _WORTH_ELEMENTS:
        return None
    ready = _started(x.dtype.str)
    return ready[0] if ready else None


def _alike(compiled: Summing, dtype: str) -> bool:
    """Whether it gives the bits that `summed` gives, on a sample."""
    rng = np.random.default_rng(0)
    for columns, calls, shifted in ((12, 1, True), (50, 2, False)):
        blocks = rng.standard_normal((calls, 3, 101, columns)).astype(dtype)
        shift = rng.standard_normal(columns).astype(dtype) if shifted else None
        panels = cut(columns)
        results = [np.zeros(panels[-1].stop + columns, dtype) for _ in range(2)]
        for add_up, total in zip((summed, compiled), results, strict=True):
            add_up(blocks, shift, panels, total)
        if not np.array_equal(results[0], results[1]):
            return False
    return True
