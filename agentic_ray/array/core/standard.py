"""NumPy's spelling over namespaces that have only the array API standard's.

Kernels say what NumPy and CuPy understand alike. Over any other namespace (array_api_strict,
PyTorch behind array_api_compat, a user's own device) they are given a `NumpyNames` instead, which
renames functions and parameters; what the standard has no function for is missing there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_NAMES = {
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "concatenate": "concat",
    "cumprod": "cumulative_prod",
    "cumsum": "cumulative_sum",
    "invert": "bitwise_invert",
    "left_shift": "bitwise_left_shift",
    "power": "pow",
    "right_shift": "bitwise_right_shift",
    "transpose": "permute_dims",
    "true_divide": "divide",
}
"""Functions that only differ in name."""


def spelled(xp: Any) -> Any:
    """``xp`` if it has NumPy's functions, else NumPy's names over it."""
    return xp if hasattr(xp, "ndarray") else _names(xp)


def own(xp: Any) -> Any:
    """The device's own namespace, for users' functions."""
    return xp._own if isinstance(xp, NumpyNames) else xp


def cast(xp: Any, x: Any, dtype: Any) -> Any:
    """``x`` in another dtype; itself if it has that already."""
    x = x if hasattr(x, "dtype") else xp.asarray(x)
    if hasattr(x, "astype"):
        return x.astype(dtype, copy=False)
    return xp.astype(x, dtype, copy=False)


def dtype_of(x: Any) -> np.dtype[Any]:
    """The dtype of an array as NumPy has it."""
    dtype = x.dtype
    return dtype if isinstance(dtype, np.dtype) else np.dtype(str(dtype).rpartition(".")[2])


def on_host(x: Any) -> np.ndarray[Any, Any]:
    """The elements of a small array, whatever device it is on, as NumPy's."""
    return np.asarray(x.get() if hasattr(x, "get") else x)


@dataclass(frozen=True, slots=True)
class Spelled:
    """A kernel's version for GPUs: ``function`` with NumPy's names on whatever device."""

    function: Callable[..., Any]

    def __call__(self, *values: Any, xp: Any) -> Any:
        return self.function(*values, xp=spelled(xp))


class NumpyNames:
    """NumPy's functions, as far as kernels call them and the standard has them."""

    def __init__(self, xp: Any) -> None:
        self._own = xp
        self.ndarray = type(xp.asarray(0))
        self.linalg = _Linalg(xp)
        self.fft = _Fft(xp)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._own, _NAMES.get(name, name))
        if not callable(found):
            return found
        made = self.with_dtypes(found)
        setattr(self, name, made)
        return made

    def with_dtypes(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, which may be given NumPy's dtypes."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            kwargs = {name: self._native(value) for name, value in kwargs.items()}
            return function(*map(self._native, args), **kwargs)

        return call

    def _native(self, value: Any) -> Any:
        if isinstance(value, np.dtype) or (
            isinstance(value, type) and issubclass(value, np.generic)
        ):
            return getattr(self._own, np.dtype(value).name)
        return value.item() if isinstance(value, np.generic) else value

    def array(self, x: Any) -> Any:
        return self._own.asarray(x, copy=True)

    def arange(self, *args: Any, dtype: Any = np.int64) -> Any:
        return self._own.arange(*args, dtype=self._native(dtype))

    def empty(self, shape: Any, dtype: Any = np.float64) -> Any:
        return self._own.empty(shape, dtype=self._native(dtype))

    def ones(self, shape: Any, dtype: Any = np.float64) -> Any:
        return self._own.ones(shape, dtype=self._native(dtype))

    def sum(self, x: Any, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        if dtype_of(x).kind == "b":
            x = self._own.astype(x, self._own.int64)
        return self._own.sum(x, axis=axis, dtype=self._native(dtype), keepdims=keepdims)

    def real(self, x: Any) -> Any:
        return self._own.real(x) if dtype_of(x).kind == "c" else x

    def conj(self, x: Any) -> Any:
        return self._own.conj(x) if dtype_of(x).kind == "c" else x

    def reshape(self, x: Any, shape: Any) -> Any:
        return self._own.reshape(x, shape if isinstance(shape, tuple) else (shape,))

    def sort(self, x: Any, *, axis: int = -1, kind: str = "stable") -> Any:
        return self._own.sort(x, axis=axis)

    def argsort(self, x: Any, *, axis: int = -1, kind: str = "stable") -> Any:
        return self._own.argsort(x, axis=axis)

    def matmul(self, a: Any, b: Any, *, out: Any = None) -> Any:
        return self._own.matmul(a, b)

    def swapaxes(self, x: Any, first: int, second: int) -> Any:
        order = list(range(x.ndim))
        order[first], order[second] = order[second], order[first]
        return self._own.permute_dims(x, tuple(order))

    def diagonal(self, x: Any, *, offset: int = 0, axis1: int = -2, axis2: int = -1) -> Any:
        return self._own.linalg.diagonal(x, offset=offset)

    def tril(self, x: Any, k: int = 0) -> Any:
        return self._own.tril(x, k=k)

    def triu(self, x: Any, k: int = 0) -> Any:
        return self._own.triu(x, k=k)


class _Linalg:
    """NumPy's ``linalg``, of the same kind."""

    def __init__(self, xp: Any) -> None:
        self._own = xp.linalg

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def svd(self, x: Any, *, full_matrices: bool = True, compute_uv: bool = True) -> Any:
        if not compute_uv:
            return self._own.svdvals(x)
        return self._own.svd(x, full_matrices=full_matrices)

    def pinv(self, x: Any, rtol: Any) -> Any:
        return self._own.pinv(x, rtol=rtol)

    def qr(self, x: Any, *, mode: str = "reduced") -> Any:
        return self._own.qr(x)[1] if mode == "r" else self._own.qr(x, mode=mode)


class _Fft:
    """NumPy's ``fft``, of the same kind."""

    def __init__(self, xp: Any) -> None:
        self._xp = xp

    def __getattr__(self, name: str) -> Any:
        return getattr(self._xp.fft, name)

    def _complex(self, x: Any) -> Any:
        dtype = np.result_type(dtype_of(x), np.complex64).name
        return self._xp.astype(x, getattr(self._xp, dtype), copy=False)

    def fft(self, x: Any, **options: Any) -> Any:
        return self._xp.fft.fft(self._complex(x), **options)

    def ifft(self, x: Any, **options: Any) -> Any:
        return self._xp.fft.ifft(self._complex(x), **options)


_names = functools.lru_cache(maxsize=8)(NumpyNames)
