"""The namespace ``numpy.fft``, also the standard's: transforms along axes, which are put in one
chunk each.

A transform over several axes is made axis by axis, so that the other axes stay cut.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from agentic_ray.array.array_object import Array, check_device
from agentic_ray.array.core import standard
from agentic_ray.array.core.build import along, blockwise_op, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType, Node
from agentic_ray.array.manipulation import concatenate, roll
from agentic_ray.array.names import refusal
from agentic_ray.array.outputs import delivered
from agentic_ray.array.ranges import arange
from agentic_ray.errors import InvalidArgumentError

NORMS = ("backward", "ortho", "forward")


@dataclass(frozen=True, slots=True)
class Transform:
    """A one-dimensional transform of NumPy's, cast to the dtype that goes with its input."""

    name: str

    def __call__(self, xp: Any, x: Any, n: int, axis: int, norm: str, dtype: DType) -> Any:
        result = getattr(xp.fft, self.name)(x, n=n, axis=axis, norm=norm)
        return standard.cast(xp, result, dtype)


_OPS = {
    name: blockwise_op(name, Transform(name), 32)
    for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
}
_REAL_INPUT = ("rfft", "ihfft")
_REAL_OUTPUT = ("irfft", "hfft")


def _transform(name: str, node: Node, n: int | None, axis: int, norm: str | None) -> Node:
    at = normalize_axis_index(operator.index(axis), node.ndim)
    norm = "backward" if norm is None else norm
    if norm not in NORMS:
        raise InvalidArgumentError(f'Invalid norm value {norm}; should be "backward", "ortho" or '
                                   '"forward".')  # fmt: skip
    if node.dtype.kind in "biu":
        node = cast(node, np.float64)
    if name in _REAL_INPUT and node.dtype.kind == "c":
        raise TypeError(f"{name} takes real input, not {node.dtype}")
    length = node.shape[at]
    if n is None:
        n = 2 * (length - 1) if name in _REAL_OUTPUT else length
    n = operator.index(n)
    if n < 1:
        raise ValueError(f"invalid number of data points ({n}) specified")
    real = np.empty(0, node.dtype).real.dtype
    dtype = real if name in _REAL_OUTPUT else np.result_type(real, np.complex64)
    out = n // 2 + 1 if name in _REAL_INPUT else n
    return along(_OPS[name], [node], (at,), (out,), dtype, (n, at, norm, dtype))


def _one(name: str, a: Any, n: int | None, axis: int, norm: str | None, out: Any) -> Any:
    return delivered(Array(_transform(name, strict_operand(a), n, axis, norm)), out)


def fft(
    a: Any, n: int | None = None, axis: int = -1, norm: str | None = None, out: Any = None
) -> Any:
    """Compute the discrete Fourier transform along ``axis``.

    Parameters
    ----------
    a : array_like
    n : int, optional
        Length to which the axis is cut, or filled with zeros, first.
    axis : int
    norm : {"backward", "ortho", "forward"}, optional
        Direction of the transform that is scaled.
    out : array, optional

    Raises
    ------
    ValueError
        ``n`` is less than 1, or there is no such ``norm``.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.fft.fft([1, 0, 0, 0])
    Array([1.+0.j, 1.+0.j, 1.+0.j, 1.+0.j], dtype=complex128)
    """
    return _one("fft", a, n, axis, norm, out)


def ifft(
    a: Any, n: int | None = None, axis: int = -1, norm: str | None = None, out: Any = None
) -> Any:
    """Compute the inverse of `fft`. Arguments as in `fft`."""
    return _one("ifft", a, n, axis, norm, out)


def rfft(
    a: Any, n: int | None = None, axis: int = -1, norm: str | None = None, out: Any = None
) -> Any:
    """Transform real input to its non-negative frequencies. Arguments as in `fft`."""
    return _one("rfft", a, n, axis, norm, out)


def irfft(
    a: Any, n: int | None = None, axis: int = -1, norm: str | None = None, out: Any = None
) -> Any:
    """Compute the inverse of `rfft`; ``n`` is the length of the result. Arguments as in `fft`."""
    return _one("irfft", a, n, axis, norm, out)


def hfft(
    a: Any, n: int | None = None, axis: int = -1, norm: str | None = None, out: Any = None
) -> Any:
    """Transform input with Hermitian symmetry to real output of length ``n``.

    Arguments as in `fft`.
    """
    return _one("hfft", a, n, axis, norm, out)


def ihfft(
    a: Any, n: int | None = None, axis: int = -1, norm: str | None = None, out: Any = None
) -> Any:
    """Compute the inverse of `hfft`. Arguments as in `fft`."""
    return _one("ihfft", a, n, axis, norm, out)


def _axes(
    x: Node, s: Sequence[int] | None, axes: Sequence[int] | None
) -> list[tuple[int | None, int]]:
    """Return the lengths and axes of a transform over several axes."""
    if axes is None:
        axes = range(x.ndim) if s is None else range(x.ndim - len(s), x.ndim)
    found = normalize_axis_tuple(tuple(axes), x.ndim, allow_duplicate=True)
    lengths: Sequence[int | None] = [None] * len(found) if s is None else list(s)
    if len(lengths) != len(found):
        raise ValueError("shape and axes have different lengths")
    return [
        (None if n is None or n == -1 else operator.index(n), axis)
        for n, axis in zip(lengths, found, strict=True)
    ]


def _many(
    x: Any,
    s: Any,
    axes: Any,
    norm: str | None,
    name: str,
    last: str | None = None,
    *,
    final: bool = False,
) -> Array:
    """Apply ``name`` over all axes, ``last`` over the last axis, done first or (``final``) last."""
    node = strict_operand(x)
    steps = [(name, n, axis) for n, axis in reversed(_axes(node, s, axes))]
    if last is not None and steps:
        steps[0] = (last, *steps[0][1:])
        if final:
            steps.append(steps.pop(0))
    for function, n, axis in steps:
        node = _transform(function, node, n, axis, norm)
    return Array(node)


def fftn(a: Any, s: Any = None, axes: Any = None, norm: str | None = None, out: Any = None) -> Any:
    """Compute the discrete Fourier transform over several axes.

    Parameters
    ----------
    a : array_like
    s : sequence of int, optional
        Lengths of the axes, as ``n`` in `fft`; -1: unchanged.
    axes : sequence of int, optional
        Axes; default: all, or as many of the last as there are lengths.
    norm, out
        As in `fft`.

    Raises
    ------
    ValueError
        ``s`` and ``axes`` differ in length.
    """
    return delivered(_many(a, s, axes, norm, "fft"), out)


def ifftn(a: Any, s: Any = None, axes: Any = None, norm: str | None = None, out: Any = None) -> Any:
    """Compute the inverse of `fftn`. Arguments as in `fftn`."""
    return delivered(_many(a, s, axes, norm, "ifft"), out)


def rfftn(a: Any, s: Any = None, axes: Any = None, norm: str | None = None, out: Any = None) -> Any:
    """Transform real input over several axes. Arguments as in `fftn`."""
    return delivered(_many(a, s, axes, norm, "fft", "rfft"), out)


def irfftn(
    a: Any, s: Any = None, axes: Any = None, norm: str | None = None, out: Any = None
) -> Any:
    """Compute the inverse of `rfftn`. Arguments as in `fftn`."""
    return delivered(_many(a, s, axes, norm, "ifft", "irfft", final=True), out)


def fft2(
    a: Any, s: Any = None, axes: Any = (-2, -1), norm: str | None = None, out: Any = None
) -> Any:
    """Apply `fftn` over two axes. Arguments as in `fftn`."""
    return delivered(_many(a, s, axes, norm, "fft"), out)


def ifft2(
    a: Any, s: Any = None, axes: Any = (-2, -1), norm: str | None = None, out: Any = None
) -> Any:
    """Apply `ifftn` over two axes. Arguments as in `fftn`."""
    return delivered(_many(a, s, axes, norm, "ifft"), out)


def rfft2(
    a: Any, s: Any = None, axes: Any = (-2, -1), norm: str | None = None, out: Any = None
) -> Any:
    """Apply `rfftn` over two axes. Arguments as in `fftn`."""
    return delivered(_many(a, s, axes, norm, "fft", "rfft"), out)


def irfft2(
    a: Any, s: Any = None, axes: Any = (-2, -1), norm: str | None = None, out: Any = None
) -> Any:
    """Apply `irfftn` over two axes. Arguments as in `fftn`."""
    return delivered(_many(a, s, axes, norm, "ifft", "irfft", final=True), out)


def _frequencies(ranges: Sequence[Array], n: Any, d: Any, dtype: Any, device: Any) -> Array:
    wanted = None if dtype is None else np.dtype(dtype)
    if wanted is not None and wanted.kind != "f":
        raise TypeError(f"frequencies are real floating point numbers, not {wanted}")
    found = concatenate(ranges).astype(np.float64) * (1.0 / (n * d))
    found = found if wanted is None else found.astype(wanted)
    return found if device is None else found.to_device(check_device(device) or "cpu")  # type: ignore[no-any-return]


def _count(n: Any) -> int:
    if not isinstance(n, int | np.integer):
        raise ValueError("n should be an integer")
    return int(n)


def fftfreq(n: int, d: float = 1.0, device: str | None = None, *, dtype: Any = None) -> Array:
    """Return the frequencies that go with `fft`'s output."""
    length = _count(n)
    half = (length - 1) // 2 + 1
    ranges = (arange(0, half), arange(-(length // 2), 0))
    return _frequencies(ranges, length, d, dtype, device)


def rfftfreq(n: int, d: float = 1.0, device: str | None = None, *, dtype: Any = None) -> Array:
    """Return the frequencies that go with `rfft`'s output."""
    length = _count(n)
    return _frequencies((arange(0, length // 2 + 1),), length, d, dtype, device)


def _shifted(x: Any, axes: Any, sign: int) -> Array:
    node = strict_operand(x)
    found = tuple(range(node.ndim)) if axes is None else normalize_axis_tuple(axes, node.ndim)
    shifts = tuple([sign * (node.shape[a] // 2) for a in found])
    return roll(Array(node), shifts, axis=found) if found else Array(node)


def fftshift(x: Any, axes: Any = None) -> Array:
    """Move the zero frequency to the middle."""
    return _shifted(x, axes, 1)


def ifftshift(x: Any, axes: Any = None) -> Array:
    """Undo `fftshift`."""
    return _shifted(x, axes, -1)


__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "ifft", "ifft2", "ifftn", "ifftshift",
    "ihfft", "irfft", "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    raise refusal(__name__, name, __all__)
