"""Fused kernels: a chain of elementwise steps, and perhaps a reduction, in one pass per chunk.

A `Program` is what a chunk task calls. It runs cache block by cache block, so temporaries stay
in the core's cache. Which expressions are put in one program is decided in ``lower``.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from agentic_ray.array.core import compiled, device_kernels
from agentic_ray.array.core.chunks import Shape, block_slices, contiguous
from agentic_ray.array.core.node import BLOCK_ELEMENTS, Reduction
from agentic_ray.array.core.order import in_c_order
from agentic_ray.array.core.standard import Spelled
from agentic_ray.blas import one_thread
from agentic_ray.graph import Codelet, fold

Location = tuple[tuple[int, ...], tuple[int, ...]]
"""Where a created block lies: its start and its shape."""


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel call: which registers it reads. Its result is the next register."""

    kernel: Callable[..., Any]
    registers: tuple[int, ...]
    params: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Reducing:
    """A reduction at the end of a program. ``count``: elements per result; None: leave partial."""

    steps: Reduction
    registers: tuple[int, ...]
    axes: tuple[int, ...]
    keepdims: bool
    params: tuple[Any, ...]
    count: int | None


@dataclass(frozen=True, slots=True)
class Program:
    """Steps over blocks. Registers are the inputs, then the constants, then each step's result.

    ``located`` marks inputs that are the `Location` of a block to create. Constants carry type
    and text beside the value, since 1 == 1.0 == True would make different programs equal.
    """

    located: tuple[bool, ...]
    constants: tuple[tuple[str, str, Any], ...]
    steps: tuple[Step, ...]
    dtype: np.dtype[Any]
    reducing: Reducing | None = None

    def __call__(self, *blocks: Any, xp: Any) -> Any:
        shape = self._shape(blocks)
        size = 1
        for length in shape:
            size *= length
        if xp is not np:
            made = device_kernels.run(self, blocks, shape, xp)
            if made is not None:
                return self._finish(xp, made)
        if size <= BLOCK_ELEMENTS or xp is not np or self._at_once == 0:
            registers = self._run(xp, blocks)
            if self.reducing is None:
                return as_array(xp, registers[-1])
            return self._finish(xp, self._partial(xp, self.reducing, registers))
        kernel = None
        if self.steps or (self.reducing is not None and self.reducing.steps.compiled):
            kernel = compiled.wanted(self, blocks, shape, size)
        if self.reducing is None:
            out = xp.empty(shape, self.dtype)
            if kernel is not None:
                kernel.values(blocks, shape)(out.reshape(-1), 0, size)
                return out
            for region in block_slices(contiguous(shape, BLOCK_ELEMENTS)):
                out[region] = self._run(xp, self._cut(blocks, region, shape))[-1]
            return out
        return self._finish(xp, self._reduce(xp, self.reducing, blocks, shape, kernel))

    def rows(self, blocks: Sequence[Any], xp: Any) -> tuple[Shape, Callable[[int, int], Any]]:
        """The shape of the program's value, and what makes rows ``start`` to ``stop`` of it, in C
        order."""
        shape = self._shape(blocks)
        if not self.steps:
            (whole,) = blocks
            return shape, lambda start, stop: whole[start:stop]
        kernel = compiled.wanted(self, blocks, shape, prod(shape)) if xp is np else None
        if kernel is None:
            rest = tuple(slice(0, length) for length in shape[1:])

            def made(start: int, stop: int) -> Any:
                part = self._cut(blocks, (slice(start, stop), *rest), shape)
                return as_array(xp, self._run(xp, part)[-1])

            return shape, made
        fill, width = kernel.values(blocks, shape), prod(shape[1:])

        def filled(start: int, stop: int) -> Any:
            out = np.empty((stop - start, *shape[1:]), self.dtype)
            fill(out.reshape(-1), start * width, stop * width)
            return out

        return shape, filled

    @property
    def _at_once(self) -> int:
        """Elements of which a partial value is made; 0: all."""
        return BLOCK_ELEMENTS * (self.reducing.steps.cache_blocks if self.reducing else 1)

    def like_numpy(self, kernel: compiled.Compiled, blocks: Sequence[Any], shape: Shape) -> bool:
        """Whether a compiled kernel gives the very bits that NumPy gives for these blocks."""
        if self.reducing is None:
            out = np.empty(prod(shape), self.dtype)
            kernel.values(blocks, shape)(out, 0, prod(shape))
            return bool(out.tobytes() == self._run(np, blocks)[-1].tobytes())
        found, plain = (
            self._reduce(np, self.reducing, blocks, shape, one) for one in (kernel, None)
        )
        pairs = zip(found, plain, strict=True) if isinstance(found, tuple) else [(found, plain)]
        return all(one.tobytes() == other.tobytes() for one, other in pairs)

    def _shape(self, blocks: Sequence[Any]) -> Shape:
        shapes = [
            block[1] if located else block.shape
            for block, located in zip(blocks, self.located, strict=True)
        ]
        first = shapes[0] if shapes else ()
        if all(shape == first for shape in shapes):
            return tuple(first)
        return np.broadcast_shapes(*shapes)

    def _cut(self, blocks: Sequence[Any], region: tuple[slice, ...], shape: Shape) -> list[Any]:
        """The parts of ``blocks`` that broadcast to ``region``."""
        result: list[Any] = []
        for block, located in zip(blocks, self.located, strict=True):
            own = block[1] if located else block.shape
            if not own:
                result.append(block)
                continue
            skip = len(shape) - len(own)
            part = tuple(
                slice(0, 1) if length == 1 else region[skip + axis]
                for axis, length in enumerate(own)
            )
            if located:
                starts = tuple(a + p.start for a, p in zip(block[0], part, strict=True))
                result.append((starts, tuple(p.stop - p.start for p in part)))
            else:
                result.append(block[part])
        return result

    def _run(self, xp: Any, blocks: Sequence[Any]) -> list[Any]:
        registers: list[Any] = [*blocks, *(value for _, _, value in self.constants)]
        for step in self.steps:
            operands = [registers[i] for i in step.registers]
            registers.append(step.kernel(xp, *operands, *step.params))
        return registers

    def _partial(self, xp: Any, reducing: Reducing, registers: Sequence[Any]) -> Any:
        operands = [registers[i] for i in reducing.registers]
        return reducing.steps.partial(xp, *operands, reducing.axes, *reducing.params)

    def _reduce(
        self,
        xp: Any,
        reducing: Reducing,
        blocks: Sequence[Any],
        shape: Shape,
        kernel: compiled.Compiled | None,
    ) -> Any:
        combine = functools.partial(reducing.steps.combine, xp=xp)
        if kernel is not None and kernel.reduces:
            return compiled.fold_stacked(combine, kernel.partials(blocks, shape))
        grid = contiguous(shape, self._at_once)
        cuts: list[list[slice]] = []
        for lengths in grid:
            ends = list(itertools.accumulate(lengths))
            cuts.append([slice(e - n, e) for e, n in zip(ends, lengths, strict=True)])
        kept = [[slice(0, 1)] if a in reducing.axes else cuts[a] for a in range(len(shape))]
        gone = [cuts[a] if a in reducing.axes else [slice(None)] for a in range(len(shape))]
        fill = None
        if kernel is not None:
            fill, scratch = kernel.values(blocks, shape), np.empty(self._at_once, self.dtype)

        def one(region: tuple[slice, ...]) -> Any:
            """The partial value of one cache block."""
            if fill is None:
                return self._partial(xp, reducing, self._run(xp, self._cut(blocks, region, shape)))
            size, low = 1, 0
            for length, part in zip(shape, region, strict=True):
                low = low * length + part.start
                size *= part.stop - part.start
            values = scratch[:size]
            fill(values, low, low + size)
            values = values.reshape([part.stop - part.start for part in region])
            return reducing.steps.partial(xp, values, reducing.axes, *reducing.params)

        result: Any = None
        for outer in itertools.product(*kept):
            parts = (
                one(
                    tuple(
                        i if a in reducing.axes else o
                        for a, (i, o) in enumerate(zip(inner, outer, strict=True))
                    )
                )
                for inner in itertools.product(*gone)
            )
            value = fold(combine, parts)
            if all(len(axis) == 1 for axis in kept):
                return value
            if result is None:
                whole = tuple(1 if a in reducing.axes else n for a, n in enumerate(shape))
                result = _allocate(xp, value, whole)
            _store(result, value, outer)
        return result

    def _finish(self, xp: Any, value: Any) -> Any:
        reducing = self.reducing
        if reducing is None or reducing.count is None:
            return value
        return finish(
            xp, value, reducing.steps, reducing.axes, reducing.keepdims, reducing.count,
            *reducing.params,
        )  # fmt: skip


def _allocate(xp: Any, value: Any, shape: Shape) -> Any:
    if isinstance(value, tuple):
        return tuple(_allocate(xp, part, shape) for part in value)
    return xp.empty(shape, value.dtype)


def _store(result: Any, value: Any, region: tuple[slice, ...]) -> None:
    if isinstance(value, tuple):
        for out, part in zip(result, value, strict=True):
            _store(out, part, region)
    else:
        result[region] = value


def finish(
    xp: Any,
    value: Any,
    steps: Reduction,
    axes: tuple[int, ...],
    keepdims: bool,
    count: int,
    *params: Any,
) -> Any:
    """The result of a reduction from its combined partial value."""
    result = steps.final(xp, value, count, *params)
    if isinstance(result, tuple):
        return result
    result = as_array(xp, result)
    return result if keepdims or not axes else xp.squeeze(result, axis=axes)


def as_array(xp: Any, value: Any) -> Any:
    """``value`` as an array of ``xp`` in C order: NumPy's kernels give scalars for 0-d operands."""
    return in_c_order(value if isinstance(value, xp.ndarray) else xp.asarray(value))


def host_only(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: this kernel calls what CuPy has not got, so its tasks run on CPUs."""
    kernel.host_only = True  # type: ignore[attr-defined]
    return kernel


def is_host_only(kernel: Any) -> bool:
    """Whether a kernel, or an object that calls one, is not for GPUs."""
    return bool(getattr(kernel, "host_only", False))


@dataclass(frozen=True, slots=True)
class Call:
    """A kernel over ``xp`` with its parameters, as a task calls it."""

    kernel: Callable[..., Any]
    params: tuple[Any, ...] = ()

    @property
    def host_only(self) -> bool:
        return any(is_host_only(part) for part in (self.kernel, *self.params))

    def __call__(self, *values: Any, xp: Any) -> Any:
        with one_thread:
            result = self.kernel(xp, *values, *self.params)
        return in_c_order(result) if isinstance(result, tuple) else as_array(xp, result)


@functools.lru_cache(maxsize=1024)
def codelet(name: str, function: Callable[..., Any]) -> Codelet:
    """The codelet that calls ``function`` on either kind of device, or on CPUs only."""
    return Codelet(f"array.{name}", function, None if is_host_only(function) else Spelled(function))
