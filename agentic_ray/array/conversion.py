"""Arrays from Python objects, from NumPy, from other libraries and from memory or text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array, check_device, check_order, is_fortran
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import check_numbers, without_arrays
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import NDArray, data
from agentic_ray.array.core.views import rechunk
from agentic_ray.array.operators import FUNCTIONS
from agentic_ray.array.viewing import Reshape
from agentic_ray.errors import InvalidTypeError


def check_like(like: Any) -> None:
    """Refuse prototypes that NumPy's ``like=`` refuses; every other one makes an array of this
    package.

    Raises
    ------
    TypeError
        ``like`` is no array.
    """
    if like is not None and not hasattr(like, "__array_function__"):
        raise TypeError(
            "The `like` argument must be an array-like that implements the `__array_function__` "
            "protocol."
        )


def asarray(
    a: Any,
    dtype: Any = None,
    order: str | None = None,
    *,
    device: str | None = None,
    copy: bool | None = None,
    like: Any = None,
    chunks: Any = None,
) -> Array:
    """Return an array with the values of ``a``.

    Parameters
    ----------
    a
        An array, a Python scalar, nested sequences of these, or anything with a buffer,
        ``__array__`` or DLPack.
    dtype, device
        Dtype and device, as in the standard.
    order : {"K", "A", "C", "F"}, optional
        Order in which NumPy would have the elements. Chunks have none: it only decides the later
        meaning of ``order="K"`` and ``"A"``.
    copy : bool, optional
        False: share memory with a NumPy array, which must then not change. Default: copy writable
        memory.
    like : array, optional
        Any array that implements NumPy's protocols.
    chunks
        Default ``"auto"`` for new arrays: sized from bytes. Or an int for all axes, or per
        axis an int, ``-1`` (one chunk), ``"auto"`` or a tuple of lengths.

    Raises
    ------
    ValueError
        ``copy=False`` and a copy is needed.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.asarray([1, 2, 3], "float32")
    Array([1., 2., 3.], dtype=float32)
    """
    check_like(like)
    order = check_order(order)
    if isinstance(a, Array):
        return _as_array(a, dtype, order, device, copy, chunks)
    array = _as_numpy(a, dtype, copy)
    node = data(
        array,
        grids.normalize("auto" if chunks is None else chunks, array.shape, array.dtype),
        check_device(device) or "cpu",
    )
    return Array(node, is_cell=True, is_fortran=is_fortran(order, array))


def _as_array(
    array: Array, dtype: Any, order: str, device: str | None, copy: bool | None, chunks: Any
) -> Array:
    node = array._node
    if dtype is not None and np.dtype(dtype) != node.dtype:
        if copy is False:
            raise ValueError(f"a cast from {node.dtype} to {np.dtype(dtype)} needs a copy")
        node = cast(node, check_numbers(np.dtype(dtype)))
    if chunks is not None:
        node = rechunk(node, grids.normalize(chunks, node.shape, node.dtype))
    flags = array._layout.flags if order in "CF" else None
    reorders = flags is not None and not (flags.c_contiguous if order == "C" else flags.forc
                                          and flags.f_contiguous)  # fmt: skip
    if reorders and copy is False:
        raise ValueError("Unable to avoid copy while creating an array as requested.")
    result = array
    if copy or reorders or node is not array._node:
        result = Array(node, is_cell=True, is_fortran=is_fortran(order, array._layout))
    return result if device is None else result.to_device(device)


def _as_numpy(obj: Any, dtype: Any, copy: bool | None) -> NDArray:
    """Return ``obj`` as a NumPy array that nobody else writes to, in native byte order."""
    if isinstance(obj, list | tuple):
        obj = without_arrays(obj)
    if not isinstance(obj, np.ndarray | np.generic) and hasattr(obj, "__dlpack__"):
        obj = np.from_dlpack(obj)
    array = np.asarray(obj, dtype=None if dtype is None else check_numbers(np.dtype(dtype)))
    check_numbers(array.dtype, obj)
    fresh = array is not obj and not np.may_share_memory(array, _memory_of(obj))
    if copy is False and (fresh or not array.dtype.isnative):
        raise ValueError(f"a {type(obj).__name__} cannot become an array without a copy")
    if not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    if fresh or copy is False or (copy is None and _is_constant(array)):
        return array
    return np.array(array)


def _memory_of(obj: Any) -> NDArray:
    if isinstance(obj, np.ndarray):
        return obj
    try:
        return np.frombuffer(obj, np.uint8)
    except (TypeError, ValueError, BufferError, AttributeError):
        # No plain buffer: the object that made the array (``__array__``) may still own its memory.
        return np.asarray(obj) if hasattr(obj, "__array__") else np.empty(0)


def _is_constant(array: NDArray) -> bool:
    """Whether nobody can write to this memory through NumPy."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return False
        base = base.base
    return base is None or isinstance(base, bytes)


def from_numpy(array: NDArray, /, *, chunks: Any = "auto", device: str | None = None) -> Array:
    """Return an array over ``array``'s memory, without a copy; it must not change afterwards.

    Examples
    --------
    >>> import numpy as np
    >>> import agentic_ray.array as xp
    >>> xp.from_numpy(np.arange(6), chunks=3).chunks
    ((3, 3),)
    """
    if not isinstance(array, np.ndarray):
        raise InvalidTypeError(f"from_numpy expects a NumPy array, not {type(array).__name__}")
    return asarray(array, copy=False if array.dtype.isnative else None,
                   chunks=chunks, device=device)  # fmt: skip


def array(
    object: Any,
    dtype: Any = None,
    *,
    copy: bool | None = True,
    order: str | None = "K",
    subok: bool = False,
    ndmin: int = 0,
    ndmax: int = 0,
    like: Any = None,
    chunks: Any = None,
) -> Array:
    """Return an array with the values of ``object``, by default as a copy.

    Parameters
    ----------
    object, dtype, copy, order, like, chunks
        As in `asarray`.
    subok : bool
        Ignored; arrays here have no subclasses.
    ndmin : int
        Least number of axes: axes of length 1 are put in front until there are so many.
    ndmax : int
        Depth to which sequences are looked into; 0: to the last.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.array([1, 2], ndmin=2).shape
    (1, 2)
    """
    if ndmax and not isinstance(object, Array):
        object = np.array(without_arrays(object), dtype=dtype, ndmax=ndmax)
    made = asarray(object, dtype, order, copy=copy, like=like, chunks=chunks)
    if made.ndim < ndmin:
        # An array of its own, as NumPy's would be; not a view.
        node = Reshape((1,) * (ndmin - made.ndim) + made.shape).read(made._node)
        return Array(node, is_cell=True, is_fortran=made._is_fortran)
    return made


def asanyarray(
    a: Any,
    dtype: Any = None,
    order: str | None = None,
    *,
    device: str | None = None,
    copy: bool | None = None,
    like: Any = None,
) -> Array:
    """Convert as `asarray` does: arrays here have no subclasses that could pass through."""
    return asarray(a, dtype, order, device=device, copy=copy, like=like)


def ascontiguousarray(a: Any, dtype: Any = None, *, like: Any = None) -> Array:
    """Convert as `asarray` does, in C order, with at least one axis."""
    made = asarray(a, dtype, "C", like=like)
    return made if made.ndim else array(made, ndmin=1)


def asfortranarray(a: Any, dtype: Any = None, *, like: Any = None) -> Array:
    """Convert as `asarray` does, in Fortran order (see there), with at least one axis."""
    made = asarray(a, dtype, "F", like=like)
    return made if made.ndim else array(made, ndmin=1)


def asarray_chkfinite(a: Any, dtype: Any = None, order: str | None = None) -> Array:
    """Convert as `asarray` does; refuse NaN and infinities, so the elements are computed now.

    Raises
    ------
    ValueError
        An element is NaN or infinite.
    """
    made = asarray(a, dtype, order)
    if made.dtype.kind in "fc" and not bool(np.isfinite(made).all()):
        raise ValueError("array must not contain infs or NaNs")
    return made


_REQUIREMENTS = {
    "C": "C", "C_CONTIGUOUS": "C", "CONTIGUOUS": "C",
    "F": "F", "F_CONTIGUOUS": "F", "FORTRAN": "F",
    "A": "", "ALIGNED": "", "W": "", "WRITEABLE": "", "O": "O", "OWNDATA": "O",
    "E": "", "ENSUREARRAY": "",
}  # fmt: skip


def require(
    a: Any,
    dtype: Any = None,
    requirements: str | Iterable[str] | None = None,
    *,
    like: Any = None,
) -> Array:
    """Convert to an array that fulfils ``requirements``; all arrays here are aligned and writable.

    Parameters
    ----------
    requirements : str or sequence of str
        ``"C"``, ``"F"``, ``"A"`` (aligned), ``"W"`` (writable), ``"O"`` (no view), ``"E"``.

    Raises
    ------
    KeyError
        There is no such requirement.
    ValueError
        C and Fortran order are both asked for.
    """
    wanted = {_REQUIREMENTS[name.upper()] for name in requirements or ()}
    if {"C", "F"} <= wanted:
        raise ValueError('Cannot specify both "C" and "F" order')
    made = asarray(a, dtype, "F" if "F" in wanted else "C" if "C" in wanted else "A", like=like)
    return made.copy("A") if "O" in wanted and made.base is not None else made


def isfortran(a: Any) -> bool:
    """Whether NumPy would have the elements in Fortran order and not also in C order."""
    return bool(a.flags.fnc)


def copy(a: Any, order: str = "K", subok: bool = False) -> Array:
    """Return an array of its own with the same values.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> x = xp.asarray([1, 2, 3])
    >>> y = xp.copy(x)
    >>> x[0] = 10
    >>> y
    Array([1, 2, 3], dtype=int64)
    """
    return array(a, order=order, subok=subok, copy=True)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Array:
    """Return an array of any object with ``__dlpack__``; brought to host memory if need be.

    Raises
    ------
    BufferError, ValueError
        The exporter refuses, or a needed copy was forbidden.
    """
    if isinstance(device, tuple):
        device = None  # a DLPack device: there is only host memory here
    if isinstance(x, Array):
        result = asarray(x, copy=copy)
    else:
        result = asarray(np.from_dlpack(x, copy=copy), copy=copy)
    return result if device is None else result.to_device(check_device(device) or "cpu")


# --- from memory, text and iterables -----------------------------------------------------


def frombuffer(
    buffer: Any, dtype: Any = None, count: int = -1, offset: int = 0, *, like: Any = None
) -> Array:
    """Return a vector of the elements in a buffer; writable memory is copied.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.frombuffer(b"\\x01\\x02\\x03", "uint8", count=2)
    Array([1, 2], dtype=uint8)
    """
    return asarray(np.frombuffer(buffer, dtype or float, count, offset), like=like)


def fromfile(
    file: Any,
    dtype: Any = None,
    count: int = -1,
    sep: str = "",
    offset: int = 0,
    *,
    like: Any = None,
) -> Array:
    """Return a vector of the elements of a file, as text or bytes, read in this process at the
    call.

    For larger files see `from_npy` and its like.
    """
    found = np.fromfile(_opened(file), dtype or float, count, sep, offset)
    return asarray(found, copy=False, like=like)


def fromstring(
    string: str, dtype: Any = float, count: int = -1, *, sep: str, like: Any = None
) -> Array:
    """Return a vector of the numbers in a text, which ``sep`` separates.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.fromstring("1, 2", dtype=int, sep=",")
    Array([1, 2], dtype=int64)
    """
    return asarray(np.fromstring(string, dtype, count, sep=sep), copy=False, like=like)


def fromiter(iter: Iterable[Any], dtype: Any, count: int = -1, *, like: Any = None) -> Array:
    """Return a vector of the elements of an iterable, which is gone through now.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.fromiter((n * n for n in range(4)), dtype=int)
    Array([0, 1, 4, 9], dtype=int64)
    """
    found = np.fromiter(iter, check_numbers(np.dtype(dtype)), count)
    return asarray(found, copy=False, like=like)


def fromregex(file: Any, regexp: Any, dtype: Any, encoding: str | None = None) -> Array:
    """Return records of the groups of a regular expression wherever it matches in a text file."""
    return asarray(np.fromregex(_opened(file), regexp, dtype, encoding), copy=False)


def _opened(file: Any) -> Any:
    return os.fspath(file) if isinstance(file, os.PathLike) else file


def sequence_of(values: Any) -> Sequence[Any]:
    """Return operands given as a sequence, or as the rows of one array.

    Raises
    ------
    TypeError
        ``values`` is an iterator or another object without a length.
    """
    if isinstance(values, Array):
        return [values[i] for i in range(len(values))]
    if not hasattr(values, "__getitem__"):
        raise TypeError(
            'arrays to stack must be passed as a "sequence" type such as list or tuple.'
        )
    return list(values)


FUNCTIONS["asarray"] = asarray
