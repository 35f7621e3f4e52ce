"""Fused kernels: a chain of elementwise steps, and perhaps a reduction, in one pass per chunk.

A `Program` is what a chunk task calls. It runs cache block by cache block, so temporaries stay
in the core's cache. Which expressions are put in one program is decided in ``lower``.

Numbers are no part of a program, nor of a `Call`: each task brings them as arguments, after its
blocks. So a loop over step sizes has one program, one codelet and one compiled kernel.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from agentic_ray.array.core import allocator, compiled, device_kernels, sharing, windows
from agentic_ray.array.core.chunks import (
    Shape,
    block_slices,
    contiguous,
    for_reduction,
    is_run,
)
from agentic_ray.array.core.node import BLOCK_ELEMENTS, Held, Reduction
from agentic_ray.array.core.order import in_c_order
from agentic_ray.array.core.standard import Spelled
from agentic_ray.blas import one_thread
from agentic_ray.graph import Codelet, fold
from agentic_ray.recent import Recent

Location = tuple[tuple[int, ...], tuple[int, ...]]
"""Where a created block lies: its start and its shape."""


@dataclass(frozen=True, slots=True)
class Given:
    """Stands among a kernel's parameters for number ``at`` of those that the task brings."""

    at: int


allocator.keep_freed_memory()  # wherever programs run, as here

WIDTH_ELEMENTS = 8192
"""Of parts of blocks of which a single row has more than `BLOCK_ELEMENTS`."""
ROWS_AT_ONCE = 4
"""So many cache blocks are taken at a time where their rows are only added up."""
EXACT_AT_ONCE = 16
"""And so many where blocks are only searched, so that it makes no difference."""
EXACT = {
    "add", "subtract", "multiply", "divide", "true_divide", "negative", "positive", "absolute",
    "square", "sqrt",
}  # fmt: skip
"""Operations on real numbers that IEEE 754 rounds exactly: no loop of NumPy's gives other bits."""

_NUMBERS = (int, float, complex, np.generic)
_BESIDE_NUMBERS = (bool, str, slice, type(None))
_MOST_NUMBERS = 1024
"""Longer tuples are left in the codelet, which is sent once, not with each task."""


def lifted(params: Sequence[Any], given: list[Any]) -> tuple[Any, ...]:
    """``params`` with a `Given` in place of each number, of each tuple of numbers (and slices
    and the like), and of each small array that is `Held`; these are appended to ``given``.

    What says how a kernel works stays: dtypes, truth values, names, functions.
    """
    result: list[Any] = []
    for param in params:
        if type(param) is not bool and (isinstance(param, _NUMBERS) or _has_numbers(param)):
            result.append(Given(len(given)))
            given.append(param)
        else:
            result.append(param)
    return tuple(result)


def _has_numbers(param: Any) -> bool:
    if isinstance(param, slice):
        return True
    if type(param) is Held:
        return isinstance(param.value, np.ndarray) and param.value.size <= _MOST_NUMBERS
    if type(param) is not tuple or len(param) > _MOST_NUMBERS:
        return False
    return any(isinstance(part, _NUMBERS) or _has_numbers(part) for part in param) and all(
        isinstance(part, (*_NUMBERS, *_BESIDE_NUMBERS)) or _has_numbers(part) for part in param
    )


def filled(params: Sequence[Any], given: Sequence[Any]) -> Sequence[Any]:
    """``params`` with the numbers back in the places of `lifted`."""
    if not params:
        return params
    return [given[param.at] if type(param) is Given else param for param in params]


@dataclass(frozen=True, slots=True)
class Step:
    """A kernel call and the registers it reads. Its result is the next register."""

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
    count: Any = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """The arguments of one call of a program: its blocks, Python scalars, numbers for params; and
    for each step the registers that no later one reads."""

    blocks: Sequence[Any]
    scalars: Sequence[Any]
    given: Sequence[Any]
    done: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Program:
    """Steps over blocks. Registers are the blocks, then the scalars, then each step's result.

    Called with the blocks, the scalars and the numbers that its parameters are `Given`.

    Parameters
    ----------
    located : tuple of bool
        Which blocks are the `Location` of one to create.
    scalars : int
        How many Python scalars are among its operands. They promote as in NumPy.
    """

    located: tuple[bool, ...]
    scalars: int
    steps: tuple[Step, ...]
    dtype: np.dtype[Any]
    reducing: Reducing | None = None
    shares_blocks: ClassVar[bool] = True
    """Idle threads of this process may take cache blocks of a call."""

    def __call__(self, *arguments: Any, xp: Any) -> Any:
        inputs = self._inputs(arguments, xp)
        blocks, scalars = inputs.blocks, inputs.scalars
        shape = self._shape(blocks)
        if not self.steps and self.reducing is None:
            return as_array(xp, windows.in_one(blocks[0], xp))
        size = 1
        for length in shape:
            size *= length
        if xp is not np:
            made = device_kernels.run(self, blocks, scalars, shape, xp)
            if made is not None:
                return self._finish(xp, made, inputs)
        if size <= BLOCK_ELEMENTS or xp is not np or self._at_once == 0:
            registers = self._run(xp, [windows.in_one(block, xp) for block in blocks], inputs)
            if self.reducing is None:
                return as_array(xp, registers[-1])
            return self._finish(xp, self._partial(xp, registers, inputs), inputs)
        kernel = None
        if self.steps or (self.reducing is not None and self.reducing.steps.compiled):
            kernel = compiled.wanted(self, inputs, shape, size)
        if kernel is not None:
            try:
                return self._finish(xp, self._made(inputs, shape, kernel), inputs)
            except Exception as error:  # whatever it is, NumPy's form says it, or does the work
                compiled.give_up(kernel, error)
        return self._finish(xp, self._made(inputs, shape, None), inputs)

    def _made(self, inputs: Inputs, shape: Shape, kernel: compiled.Compiled | None) -> Any:
        """The values of a chunk, or the partial value of its reduction, cache block by cache block:
        made by ``kernel`` or by NumPy."""
        if self.reducing is not None:
            return self._reduce(self.reducing, inputs, shape, kernel)
        out = np.empty(shape, self.dtype)
        if kernel is not None:
            fill, flat = kernel.values(inputs.blocks, inputs.scalars, shape), out.reshape(-1)
            parts = sharing.runs(out.size, BLOCK_ELEMENTS)

            def fill_part(number: int) -> None:
                low, high = parts[number]
                fill(flat[low:high], low, high)

            sharing.each(fill_part, len(parts))
            return out
        regions = list(block_slices(contiguous(shape, BLOCK_ELEMENTS)))

        def make_block(number: int) -> None:
            part = self._cut(inputs.blocks, regions[number], shape)
            self._write(out[regions[number]], part, inputs)

        sharing.each(make_block, len(regions))
        return out

    def rows(self, arguments: Sequence[Any], xp: Any) -> tuple[Shape, Callable[[int, int], Any]]:
        """The shape of the program's value, and what makes rows ``start`` to ``stop`` of it, in C
        order."""
        inputs = self._inputs(arguments, xp)
        blocks = inputs.blocks
        shape = self._shape(blocks)
        if not self.steps:
            (whole,) = blocks
            return shape, lambda start, stop: in_c_order(whole[start:stop])
        rest = tuple(slice(0, length) for length in shape[1:])

        def made(start: int, stop: int) -> Any:
            part = self._cut(blocks, (slice(start, stop), *rest), shape)
            return as_array(xp, self._run(xp, part, inputs)[-1])

        kernel = compiled.wanted(self, inputs, shape, math.prod(shape)) if xp is np else None
        if kernel is None:
            return shape, made
        fill, width = kernel.values(blocks, inputs.scalars, shape), math.prod(shape[1:])

        def filled_by_kernel(start: int, stop: int) -> Any:
            out = np.empty((stop - start, *shape[1:]), self.dtype)
            try:
                fill(out.reshape(-1), start * width, stop * width)
            except Exception as error:  # whatever it is, NumPy's form says it, or does the work
                compiled.give_up(kernel, error)
                return made(start, stop)
            return out

        return shape, filled_by_kernel

    def _inputs(self, arguments: Sequence[Any], xp: Any) -> Inputs:
        first = len(self.located)
        last = first + self.scalars
        blocks = [
            windows.opened(argument) if type(argument) is list else argument
            for argument in arguments[:first]
        ]
        if xp is not np:
            blocks = [windows.in_one(block, xp) for block in blocks]
        return Inputs(blocks, arguments[first:last], arguments[last:], self._done)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the fields alone. The cached hash must not travel: another process gives the same
        texts other hashes."""
        return Program, (self.located, self.scalars, self.steps, self.dtype, self.reducing)

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.located, self.scalars, self.steps, self.dtype, self.reducing))

    @functools.cached_property
    def _done(self) -> list[list[int]]:
        """For each step the registers that are read by it for the last time. They are dropped, so
        that a long program lives in the memory of few blocks, which the core's cache holds."""
        left = set(self.reducing.registers if self.reducing is not None else ())
        found: list[list[int]] = []
        for step in reversed(self.steps):
            last = set(step.registers) - left
            found.append(list(last))
            left |= last
        return found[::-1]

    @functools.cached_property
    def _at_once(self) -> int:
        """Elements of which a partial value is made; 0: all."""
        return BLOCK_ELEMENTS * (self.reducing.steps.cache_blocks if self.reducing else 1)

    def like_numpy(
        self,
        kernel: compiled.Compiled,
        blocks: Sequence[Any],
        scalars: Sequence[Any],
        given: Sequence[Any],
        shape: Shape,
    ) -> bool:
        """Whether a compiled kernel gives the very bits that NumPy gives for these blocks."""
        inputs = Inputs(blocks, scalars, given, self._done)
        found, plain = (self._made(inputs, shape, one) for one in (kernel, None))
        pairs = zip(found, plain, strict=True) if isinstance(found, tuple) else [(found, plain)]
        return all(one.tobytes() == other.tobytes() for one, other in pairs)

    def _shape(self, blocks: Sequence[Any]) -> Shape:
        shapes = [
            block[1] if located else block.shape
            for block, located in zip(blocks, self.located, strict=True)
        ]
        first = shapes[0] if shapes else ()
        for shape in shapes:
            if shape != first:
                return _broadcast(tuple(shapes))
        return tuple(first)

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
                found = block[part]
                if not found.flags.c_contiguous and not (
                    self._is_exact(len(result)) and _lies_forward(found)
                ):
                    found = found.copy(order="C")
                result.append(found)
        return result

    def _is_exact(self, register: int) -> bool:
        """Whether what is made of a register has the same bits however its elements lie."""
        if self.reducing is not None and register in self.reducing.registers:
            return False
        return all(
            getattr(step.kernel, "name", "") in EXACT
            for step in self.steps
            if register in step.registers
        )

    def _run(
        self,
        xp: Any,
        blocks: Sequence[Any],
        inputs: Inputs,
        steps: Sequence[Step] | None = None,
    ) -> list[Any]:
        """All registers that are read after the last of ``steps`` (default: all), for ``blocks``
        that may be parts of those of ``inputs``; None in place of the others."""
        registers: list[Any] = [*blocks, *inputs.scalars]
        for step, done in zip(self.steps if steps is None else steps, inputs.done, strict=False):
            operands = [registers[i] for i in step.registers]
            made = step.kernel(xp, *operands, *filled(step.params, inputs.given))
            for at in done:
                registers[at] = None
            del operands  # the next step then finds this memory free, and in the cache
            registers.append(made)
        return registers

    def _write(self, out: Any, blocks: Sequence[Any], inputs: Inputs) -> None:
        """Write to ``out`` what the steps make of parts of the blocks of ``inputs``. The last step
        writes there itself if it is a ufunc: that saves an array and a copy."""
        ufunc = getattr(self.steps[-1].kernel, "ufunc", None)
        if ufunc is None:
            out[...] = self._run(np, blocks, inputs)[-1]
        else:
            *steps, last = self.steps
            registers = self._run(np, blocks, inputs, steps)
            ufunc(*[registers[i] for i in last.registers], out=out)

    def _partial(self, xp: Any, registers: Sequence[Any], inputs: Inputs) -> Any:
        reducing = self.reducing
        assert reducing is not None
        operands = [registers[i] for i in reducing.registers]
        params = filled(reducing.params, inputs.given)
        return reducing.steps.partial(xp, *operands, reducing.axes, *params)

    def _reduce(
        self,
        reducing: Reducing,
        inputs: Inputs,
        shape: Shape,
        kernel: compiled.Compiled | None,
    ) -> Any:
        combine = functools.partial(reducing.steps.combine, xp=np)
        blocks = inputs.blocks
        if kernel is not None and kernel.reduces:
            stacked = kernel.partials(blocks, inputs.scalars, shape)
            return compiled.fold_stacked(combine, stacked)
        if kernel is not None and not self.steps:
            kernel = None  # it would copy what is only to be added up
        at_once = self._at_once
        if kernel is None and self._adds_rows_alone(reducing, blocks, shape):
            at_once *= ROWS_AT_ONCE
        if kernel is None and reducing.steps.exact and self._only_reads:
            at_once *= EXACT_AT_ONCE
        grid = for_reduction(shape, reducing.axes, at_once, WIDTH_ELEMENTS)
        cuts: list[list[slice]] = []
        for lengths in grid:
            ends = list(itertools.accumulate(lengths))
            cuts.append([slice(e - n, e) for e, n in zip(ends, lengths, strict=True)])
        kept = [[slice(0, 1)] if a in reducing.axes else cuts[a] for a in range(len(shape))]
        gone = [cuts[a] if a in reducing.axes else [slice(None)] for a in range(len(shape))]
        fill = None if kernel is None else kernel.values(blocks, inputs.scalars, shape)

        def one(region: tuple[slice, ...]) -> Any:
            """The partial value of one cache block."""
            if fill is None:
                registers = self._run(np, self._cut(blocks, region, shape), inputs)
                return self._partial(np, registers, inputs)
            values = np.empty([part.stop - part.start for part in region], self.dtype)
            for run, low in _runs(values, region, shape):
                fill(run, low, low + run.size)
            params = filled(reducing.params, inputs.given)
            return reducing.steps.partial(np, values, reducing.axes, *params)

        inners, outers = list(itertools.product(*gone)), list(itertools.product(*kept))

        def partial(inner: tuple[slice, ...], outer: tuple[slice, ...]) -> Any:
            cut = [i if a in reducing.axes else o
                   for a, (i, o) in enumerate(zip(inner, outer, strict=True))]  # fmt: skip
            return one(tuple(cut))

        first = fold(
            combine, sharing.in_order(lambda at: partial(inners[at], outers[0]), len(inners))
        )
        if len(outers) == 1:
            return first
        whole = tuple([1 if a in reducing.axes else n for a, n in enumerate(shape)])
        result = _allocate(first, whole)
        _store(result, first, outers[0])

        def store(number: int) -> None:
            outer = outers[1 + number]
            _store(result, fold(combine, (partial(inner, outer) for inner in inners)), outer)

        sharing.each(store, len(outers) - 1)
        return result

    @functools.cached_property
    def _only_reads(self) -> bool:
        """Whether nothing is made of the blocks before they are reduced."""
        return not any(
            at >= len(self.located) or not self.located[at]
            for step in self.steps
            for at in step.registers
        )

    def _adds_rows_alone(self, reducing: Reducing, blocks: Sequence[Any], shape: Shape) -> bool:
        """Whether nothing is made that should stay in the cache, and rows that each fit in a cache
        block are added up, each by itself: then it makes no difference how many at a time."""
        ndim, axes = len(shape), reducing.axes
        return (
            not self.steps
            and len(blocks) == 1
            and reducing.steps.compiled == "sum"
            and blocks[0].shape == shape
            and any(isinstance(p, np.dtype) and p == blocks[0].dtype for p in reducing.params)
            and 0 < len(axes) < ndim
            and axes == tuple(range(ndim - len(axes), ndim))
            and math.prod(shape[axes[0] :]) <= BLOCK_ELEMENTS
        )

    def _finish(self, xp: Any, value: Any, inputs: Inputs) -> Any:
        reducing = self.reducing
        if reducing is None or reducing.count is None:
            return value
        count, *params = filled((reducing.count, *reducing.params), inputs.given)
        return finish(xp, value, reducing.steps, reducing.axes, reducing.keepdims, count, *params)


@functools.lru_cache(maxsize=1024)
def _broadcast(shapes: tuple[Shape, ...]) -> Shape:
    """Return the shape that these broadcast to. (NumPy's own function takes 5 to 10 µs.)"""
    return np.broadcast_shapes(*shapes)


def _runs(values: Any, region: Sequence[slice], shape: Shape) -> Iterator[tuple[Any, int]]:
    """The runs of elements of a region, in C order: each run's part of ``values``, and where it
    begins in a block of this shape."""
    lengths = values.shape
    inner = 0
    while not is_run(lengths[inner:], shape[inner:]):
        inner += 1
    for at in itertools.product(*[range(length) for length in lengths[:inner]]):
        low = 0
        starts = [part.start for part in region]
        for axis, (length, start) in enumerate(zip(shape, starts, strict=True)):
            low = low * length + start + (at[axis] if axis < inner else 0)
        yield values[at].reshape(-1), low


def _allocate(value: Any, shape: Shape) -> Any:
    if isinstance(value, tuple):
        return tuple(_allocate(part, shape) for part in value)
    return np.empty(shape, value.dtype)


def _lies_forward(part: Any) -> bool:
    """Whether results of NumPy's functions of real numbers that lie so are in C order."""
    if part.dtype.kind == "c":
        return False
    strides = [step for step, length in zip(part.strides, part.shape, strict=True) if length > 1]
    return all(step > 0 for step in strides) and strides == sorted(strides, reverse=True)


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
    if keepdims or not axes:
        return result
    # (NumPy's method takes a third of the time of its function.)
    return result.squeeze(axes) if xp is np else xp.squeeze(result, axis=axes)


def as_array(xp: Any, value: Any) -> Any:
    """``value`` as an array of ``xp`` in C order: NumPy's kernels give scalars for 0-d operands."""
    return in_c_order(value if isinstance(value, xp.ndarray) else xp.asarray(value))


def host_only(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: this kernel calls what CuPy has not got, so its tasks run on CPUs."""
    kernel.host_only = True  # type: ignore[attr-defined]
    return kernel


def takes_views(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: this kernel is given the parts of blocks that it reads as views in any memory
    order, since it copies them anyway."""
    kernel.takes_views = True  # type: ignore[attr-defined]
    return kernel


def is_host_only(kernel: Any) -> bool:
    """Whether a kernel, or an object that calls one, is not for GPUs."""
    return bool(getattr(kernel, "host_only", False))


@dataclass(frozen=True, slots=True)
class Call:
    """A kernel over ``xp`` with its parameters, as a task calls it. Make it with `Call.of`.

    The last ``given`` arguments are the numbers that parameters are `Given`.
    """

    kernel: Callable[..., Any]
    params: tuple[Any, ...] = ()
    given: int = 0

    @classmethod
    def of(cls, kernel: Callable[..., Any], params: Sequence[Any]) -> tuple[Call, tuple[Any, ...]]:
        """The call, and the numbers that are to follow the arguments of each task."""
        given: list[Any] = []
        left = lifted(params, given)
        return cls(kernel, left, len(given)), tuple(given)

    @property
    def held(self) -> tuple[Any, ...]:
        """Functions that it calls, and values that it gives on; some may be a user's."""
        return (self.kernel, *self.params)

    @property
    def host_only(self) -> bool:
        return any(is_host_only(part) for part in self.held)

    def __call__(self, *values: Any, xp: Any) -> Any:
        params: Sequence[Any] = self.params
        if self.given:
            values, given = values[: -self.given], values[-self.given :]
            params = filled(params, given)
        brought = windows.viewed if getattr(self.kernel, "takes_views", False) else windows.whole
        values = tuple([brought(value, xp) if type(value) is list else value for value in values])
        with one_thread:
            result = self.kernel(xp, *values, *params)
        return in_c_order(result) if isinstance(result, tuple) else as_array(xp, result)


def codelet(name: str, function: Callable[..., Any]) -> Codelet:
    """The codelet that calls ``function`` on either kind of device, or on CPUs only.

    An equal function has the same codelet, as long as it is remembered.
    """
    return _codelets.get_or_make((name, function), lambda: _made(name, function))[0]


_codelets: Recent[tuple[str, Callable[..., Any]], tuple[Codelet, int]] = Recent(
    1024, 1 << 29, lambda entry: entry[1]
)


def _made(name: str, function: Callable[..., Any]) -> tuple[Codelet, int]:
    """The codelet and the bytes that users' functions in it see."""
    size = sum(getattr(part, "size_bytes", 0) for part in getattr(function, "held", ()))
    gpu = None if is_host_only(function) else Spelled(function)
    return Codelet(f"array.{name}", function, gpu), size
