"""The standard's extension ``fft``: transforms along axes, which are put in one chunk each.

A transform over several axes is made axis by axis, so that the others stay cut.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from agentic_ray.array.array_object import Array, check_device
from agentic_ray.array.conversion import asarray
from agentic_ray.array.core import standard
from agentic_ray.array.core.build import along, blockwise_op, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType, Node
from agentic_ray.array.manipulation import roll
from agentic_ray.errors import InvalidArgumentError

NORMS = ("backward", "ortho", "forward")


@dataclass(frozen=True, slots=True)
class Transform:
    """One of NumPy's one-dimensional transforms, cast to the dtype that goes with its input."""

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


def _transform(name: str, node: Node, n: int | None, axis: int, norm: str) -> Node:
    at = normalize_axis_index(operator.index(axis), node.ndim)
    if norm not in NORMS:
        raise InvalidArgumentError(f"norm must be one of {NORMS}, not {norm!r}")
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


def _one(name: str, x: Any, n: int | None, axis: int, norm: str) -> Array:
    return Array(_transform(name, strict_operand(x), n, axis, norm))


def fft(x: Array, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """Discrete Fourier transform along ``axis``."""
    return _one("fft", x, n, axis, norm)


def ifft(x: Array, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """Inverse of `fft`."""
    return _one("ifft", x, n, axis, norm)


def rfft(x: Array, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """Transform of real input: the non-negative frequencies."""
    return _one("rfft", x, n, axis, norm)


def irfft(x: Array, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """Inverse of `rfft`."""
    return _one("irfft", x, n, axis, norm)


def hfft(x: Array, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """Transform of input with Hermitian symmetry: real output."""
    return _one("hfft", x, n, axis, norm)


def ihfft(x: Array, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """Inverse of `hfft`."""
    return _one("ihfft", x, n, axis, norm)


def _axes(
    x: Node, s: Sequence[int] | None, axes: Sequence[int] | None
) -> list[tuple[int | None, int]]:
    """Lengths and axes of a transform over several axes."""
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
    x: Any, s: Any, axes: Any, norm: str, name: str, last: str | None = None, *, final: bool = False
) -> Array:
    """``name`` over all axes, with ``last`` for the last axis, done first or (``final``) last."""
    node = strict_operand(x)
    steps = [(name, n, axis) for n, axis in reversed(_axes(node, s, axes))]
    if last is not None and steps:
        steps[0] = (last, *steps[0][1:])
        if final:
            steps.append(steps.pop(0))
    for function, n, axis in steps:
        node = _transform(function, node, n, axis, norm)
    return Array(node)


def fftn(x: Array, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Array:
    """Discrete Fourier transform over several axes."""
    return _many(x, s, axes, norm, "fft")


def ifftn(x: Array, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Array:
    """Inverse of `fftn`."""
    return _many(x, s, axes, norm, "ifft")


def rfftn(x: Array, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Array:
    """Transform of real input over several axes."""
    return _many(x, s, axes, norm, "fft", "rfft")


def irfftn(x: Array, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Array:
    """Inverse of `rfftn`."""
    return _many(x, s, axes, norm, "ifft", "irfft", final=True)


def _frequencies(values: Any, dtype: Any, device: str | None) -> Array:
    wanted = np.dtype(dtype or np.float64)
    if wanted.kind != "f":
        raise TypeError(f"frequencies are real floating point numbers, not {wanted}")
    return asarray(values.astype(wanted), device=check_device(device))


def fftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: str | None = None) -> Array:
    """Frequencies that go with `fft`'s output."""
    return _frequencies(np.fft.fftfreq(n, d), dtype, device)


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: str | None = None) -> Array:
    """Frequencies that go with `rfft`'s output."""
    return _frequencies(np.fft.rfftfreq(n, d), dtype, device)


def _shifted(x: Array, axes: Any, sign: int) -> Array:
    node = strict_operand(x)
    found = tuple(range(node.ndim)) if axes is None else normalize_axis_tuple(axes, node.ndim)
    shifts = tuple([sign * (node.shape[a] // 2) for a in found])
    return roll(Array(node), shifts, axis=found) if found else x


def fftshift(x: Array, /, *, axes: Any = None) -> Array:
    """The zero frequency moved to the middle."""
    return _shifted(x, axes, 1)


def ifftshift(x: Array, /, *, axes: Any = None) -> Array:
    """Inverse of `fftshift`."""
    return _shifted(x, axes, -1)
