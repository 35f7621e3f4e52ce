"""The `Array` that users hold: a handle on an expression, with operators and conversions.

What operations mean is in the modules of their area; here they are only given to the operators.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.chunks import Chunks, Shape
from agentic_ray.array.core.node import DType, NDArray, Node, make
from agentic_ray.array.core.views import permuted, rechunk
from agentic_ray.errors import InvalidArgumentError

DEVICES = ("cpu", "gpu")
COPIED_BYTES = 1 << 20
"""Values up to this size are given out as copies; larger ones of leaves as read-only views."""


class Array:
    """A chunked, lazy array. Make one with the creation functions, `asarray` or `from_numpy`.

    Nothing is computed until a value is asked for: by `compute`, by conversion to NumPy or to a
    Python scalar, or where the shape of a result depends on data.
    """

    __slots__ = ("__weakref__", "_node")
    __array_priority__ = 100.0
    _node: Node

    def __init__(self, node: Node) -> None:
        self._node = node

    # --- what is known without computing -------------------------------------------------

    @property
    def shape(self) -> Shape:
        return self._node.shape

    @property
    def dtype(self) -> DType:
        return self._node.dtype

    @property
    def ndim(self) -> int:
        return len(self._node.shape)

    @property
    def size(self) -> int:
        return self._node.size

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array, computed or not."""
        return self._node.nbytes

    @property
    def itemsize(self) -> int:
        return self._node.dtype.itemsize

    @property
    def chunks(self) -> Chunks:
        """Lengths of the chunks along each axis."""
        return self._node.chunks

    @property
    def numblocks(self) -> Shape:
        """Number of chunks along each axis."""
        return grids.numblocks(self._node.chunks)

    @property
    def device(self) -> str:
        """``"cpu"``, or ``"gpu"`` if the work on it is meant for GPUs."""
        return self._node.device

    @property
    def T(self) -> Array:
        """The transpose of a matrix.

        Raises
        ------
        ValueError
            The array has not two axes; use `mT` or `permute_dims`.
        """
        if self.ndim != 2:
            raise ValueError(f"x.T needs 2 axes, not {self.ndim}; use x.mT or permute_dims")
        return Array(permuted(self._node, (1, 0)))

    @property
    def mT(self) -> Array:
        """The transpose of each matrix in a stack.

        Raises
        ------
        ValueError
            The array has fewer than two axes.
        """
        if self.ndim < 2:
            raise ValueError(f"x.mT needs at least 2 axes, not {self.ndim}")
        order = (*range(self.ndim - 2), self.ndim - 1, self.ndim - 2)
        return Array(permuted(self._node, order))

    @property
    def real(self) -> Array:
        return _call("real", self)

    @property
    def imag(self) -> Array:
        return _call("imag", self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __repr__(self) -> str:
        where = "" if self.device == "cpu" else f", device={self.device!r}"
        if self._node.value is not None and self.size <= 1000:
            text = np.array2string(self._node.value, separator=", ", prefix="Array(")
            return f"Array({text}, dtype={self.dtype}{where})"
        blocks = " × ".join(map(str, self.numblocks)) or "1"
        return (
            f"<Array shape={self.shape} dtype={self.dtype} chunks={blocks} "
            f"nbytes={self.nbytes:,}{where}, not computed>"
        )

    def _repr_html_(self) -> str:
        from agentic_ray.array.display import html

        return html(self)

    # --- values --------------------------------------------------------------------------

    def compute(self, *, progress: bool | None = None) -> NDArray:
        """The values as a NumPy array of the caller's own.

        Parameters
        ----------
        progress : bool, optional
            Show a progress bar; default: where a person watches and it takes long.
        """
        value = evaluate.values([self._node], progress=progress)[0]
        return np.array(value) if self._node.value is value or not value.flags.owndata else value

    def persist(self) -> Array:
        """Compute now and keep the chunks where they were made; this array then holds them."""
        self._node = evaluate.persist([self._node])[0]
        return self

    def rechunk(self, chunks: Any = "auto") -> Array:
        """The same values cut in other chunks.

        Parameters
        ----------
        chunks
            As in `asarray`.
        """
        return Array(rechunk(self._node, grids.normalize(chunks, self.shape, self.dtype)))

    def explain(self) -> str:
        """The plan before and after optimisation, with predicted costs, as text."""
        from agentic_ray.array.display import explain

        return explain(self)

    def to_device(self, device: str, /, *, stream: Any = None) -> Array:
        """The same values, further work on which is meant for ``device``.

        Raises
        ------
        ValueError
            There is no such device, or a stream was given.
        """
        if stream is not None:
            raise ValueError("streams are managed by the executors; leave stream out")
        device = check_device(device) or "cpu"
        if device == self.device:
            return self
        node = self._node
        return Array(make(_MOVE, (node,), (), node.shape, node.dtype, node.chunks, device))

    def astype(self, dtype: Any, /, *, copy: bool = True, device: str | None = None) -> Array:
        """See `agentic_ray.array.astype`."""
        result: Array = _function("astype")(self, dtype, copy=copy, device=device)
        return result

    def item(self) -> bool | int | float | complex:
        """The only element, as a Python scalar.

        Raises
        ------
        ValueError
            There is not exactly one.
        """
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return evaluate.value(self._node).item()  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        """The values as nested lists."""
        return evaluate.value(self._node).tolist()

    def _scalar(self, kind: str) -> Any:
        if self.shape:
            raise TypeError(f"only 0-dimensional arrays convert to {kind}, not shape {self.shape}")
        return evaluate.value(self._node).item()

    def __bool__(self) -> bool:
        if self.shape:
            if self.size != 1:
                raise ValueError(
                    "the truth value of an array with more than one element (or none) is "
                    "ambiguous; use any() or all()"
                )
            raise TypeError(f"only 0-dimensional arrays convert to bool, not shape {self.shape}")
        return bool(self._scalar("bool"))

    def __int__(self) -> int:
        value = self._scalar("int")
        if isinstance(value, complex):
            raise TypeError("a complex array does not convert to int")
        return int(value)

    def __float__(self) -> float:
        value = self._scalar("float")
        if isinstance(value, complex):
            raise TypeError("a complex array does not convert to float")
        return float(value)

    def __complex__(self) -> complex:
        return complex(self._scalar("complex"))

    def __index__(self) -> int:
        if self.dtype.kind not in "iu" or self.shape:
            raise TypeError("only 0-dimensional integer arrays can be used as an index")
        return int(self._scalar("index"))

    def __iter__(self) -> Iterator[Array]:
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    def __contains__(self, value: object) -> bool:
        return bool(_call("any", _call("equal", self, value)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        value = evaluate.values([self._node])[0]
        if dtype is not None and np.dtype(dtype) != value.dtype:
            if copy is False:
                raise ValueError("a conversion of dtype needs a copy")
            return value.astype(dtype)
        shared = self._node.value is value or self._node.op.kind == "data"
        if copy or (copy is None and shared and value.nbytes <= COPIED_BYTES):
            return np.array(value)
        if shared:
            value = value.view()
            value.flags.writeable = False
        return value

    def __array_namespace__(self, /, *, api_version: str | None = None) -> types.ModuleType:
        import agentic_ray.array as namespace
        from agentic_ray.array.inspection import API_VERSIONS

        if api_version is not None and api_version not in API_VERSIONS:
            raise ValueError(f"no version {api_version!r}; there are {', '.join(API_VERSIONS)}")
        return namespace

    def __dlpack__(
        self,
        /,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[Any, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """The values as a DLPack capsule, always in host memory.

        Raises
        ------
        BufferError
            The values cannot be exported to that device, or not without a copy.
        ValueError
            A stream was given: values in host memory have none.
        """
        if stream is not None:
            raise ValueError("values in host memory have no stream")
        value = evaluate.values([self._node])[0]
        # Consumers may write: what other expressions share is copied, unless they forbid it.
        if (
            (copy is not False and not (max_version is not None and max_version[0] >= 1))
            or copy
            or copy is None
        ):
            value = np.array(value)
        return value.__dlpack__(max_version=max_version, dl_device=dl_device, copy=copy or None)

    def __dlpack_device__(self) -> tuple[Any, int]:
        return np.empty(0).__dlpack_device__()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from agentic_ray.array.protocols import array_ufunc

        return array_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, func: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        from agentic_ray.array.protocols import array_function

        return array_function(func, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.__array__(copy=True), self.chunks, self.device)

    def __copy__(self) -> Array:
        return Array(self._node)

    def __deepcopy__(self, memo: Any) -> Array:
        return Array(self._node)

    __hash__ = None  # type: ignore[assignment]  # == compares elements

    # --- indexing ------------------------------------------------------------------------

    def __getitem__(self, key: Any, /) -> Array:
        from agentic_ray.array.indexing import getitem

        return Array(getitem(self._node, key))

    def __setitem__(self, key: Any, value: Any, /) -> None:
        from agentic_ray.array.indexing import setitem

        self._node = setitem(self._node, key, value)

    # --- operators -----------------------------------------------------------------------

    def __add__(self, other: Any, /) -> Array:
        return _binary("add", self, other)

    def __radd__(self, other: Any, /) -> Array:
        return _binary("add", other, self)

    def __sub__(self, other: Any, /) -> Array:
        return _binary("subtract", self, other)

    def __rsub__(self, other: Any, /) -> Array:
        return _binary("subtract", other, self)

    def __mul__(self, other: Any, /) -> Array:
        return _binary("multiply", self, other)

    def __rmul__(self, other: Any, /) -> Array:
        return _binary("multiply", other, self)

    def __truediv__(self, other: Any, /) -> Array:
        return _binary("divide", self, other)

    def __rtruediv__(self, other: Any, /) -> Array:
        return _binary("divide", other, self)

    def __floordiv__(self, other: Any, /) -> Array:
        return _binary("floor_divide", self, other)

    def __rfloordiv__(self, other: Any, /) -> Array:
        return _binary("floor_divide", other, self)

    def __mod__(self, other: Any, /) -> Array:
        return _binary("remainder", self, other)

    def __rmod__(self, other: Any, /) -> Array:
        return _binary("remainder", other, self)

    def __divmod__(self, other: Any, /) -> tuple[Array, Array]:
        return self // other, self % other

    def __pow__(self, other: Any, /) -> Array:
        return _binary("pow", self, other)

    def __rpow__(self, other: Any, /) -> Array:
        return _binary("pow", other, self)

    def __matmul__(self, other: Any, /) -> Array:
        return _binary("matmul", self, other)

    def __rmatmul__(self, other: Any, /) -> Array:
        return _binary("matmul", other, self)

    def __and__(self, other: Any, /) -> Array:
        return _binary("bitwise_and", self, other)

    def __rand__(self, other: Any, /) -> Array:
        return _binary("bitwise_and", other, self)

    def __or__(self, other: Any, /) -> Array:
        return _binary("bitwise_or", self, other)

    def __ror__(self, other: Any, /) -> Array:
        return _binary("bitwise_or", other, self)

    def __xor__(self, other: Any, /) -> Array:
        return _binary("bitwise_xor", self, other)

    def __rxor__(self, other: Any, /) -> Array:
        return _binary("bitwise_xor", other, self)

    def __lshift__(self, other: Any, /) -> Array:
        return _binary("bitwise_left_shift", self, other)

    def __rlshift__(self, other: Any, /) -> Array:
        return _binary("bitwise_left_shift", other, self)

    def __rshift__(self, other: Any, /) -> Array:
        return _binary("bitwise_right_shift", self, other)

    def __rrshift__(self, other: Any, /) -> Array:
        return _binary("bitwise_right_shift", other, self)

    def __eq__(self, other: Any, /) -> Array:  # type: ignore[override]
        return _binary("equal", self, other)

    def __ne__(self, other: Any, /) -> Array:  # type: ignore[override]
        return _binary("not_equal", self, other)

    def __lt__(self, other: Any, /) -> Array:
        return _binary("less", self, other)

    def __le__(self, other: Any, /) -> Array:
        return _binary("less_equal", self, other)

    def __gt__(self, other: Any, /) -> Array:
        return _binary("greater", self, other)

    def __ge__(self, other: Any, /) -> Array:
        return _binary("greater_equal", self, other)

    def __neg__(self) -> Array:
        return _call("negative", self)

    def __pos__(self) -> Array:
        return _call("positive", self)

    def __abs__(self) -> Array:
        return _call("abs", self)

    def __invert__(self) -> Array:
        return _call("bitwise_invert", self)

    def __iadd__(self, other: Any, /) -> Array:
        return self._assign(_binary("add", self, other))

    def __isub__(self, other: Any, /) -> Array:
        return self._assign(_binary("subtract", self, other))

    def __imul__(self, other: Any, /) -> Array:
        return self._assign(_binary("multiply", self, other))

    def __itruediv__(self, other: Any, /) -> Array:
        return self._assign(_binary("divide", self, other))

    def __ifloordiv__(self, other: Any, /) -> Array:
        return self._assign(_binary("floor_divide", self, other))

    def __imod__(self, other: Any, /) -> Array:
        return self._assign(_binary("remainder", self, other))

    def __ipow__(self, other: Any, /) -> Array:
        return self._assign(_binary("pow", self, other))

    def __imatmul__(self, other: Any, /) -> Array:
        return self._assign(_binary("matmul", self, other))

    def __iand__(self, other: Any, /) -> Array:
        return self._assign(_binary("bitwise_and", self, other))

    def __ior__(self, other: Any, /) -> Array:
        return self._assign(_binary("bitwise_or", self, other))

    def __ixor__(self, other: Any, /) -> Array:
        return self._assign(_binary("bitwise_xor", self, other))

    def __ilshift__(self, other: Any, /) -> Array:
        return self._assign(_binary("bitwise_left_shift", self, other))

    def __irshift__(self, other: Any, /) -> Array:
        return self._assign(_binary("bitwise_right_shift", self, other))

    def _assign(self, result: Array) -> Array:
        """Become ``result``, which an in-place operator made: same shape, own dtype."""
        if result is NotImplemented:
            return NotImplemented  # type: ignore[no-any-return]
        if result.shape != self.shape:
            raise ValueError(
                f"non-broadcastable output: in-place operation on shape {self.shape} gives "
                f"shape {result.shape}"
            )
        if result.dtype != self.dtype:
            if not np.can_cast(result.dtype, self.dtype, "same_kind"):
                raise TypeError(
                    f"cannot cast the result from {result.dtype} to {self.dtype} with casting "
                    "rule 'same_kind' in an in-place operation"
                )
            result = result.astype(self.dtype)
        self._node = result._node
        return self

    # --- methods that NumPy users expect ---------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name in _METHODS:
            return types.MethodType(_function(name), self)
        raise AttributeError(f"'Array' object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *_METHODS})

    def reshape(self, *shape: Any, copy: bool | None = None) -> Array:
        """See `agentic_ray.array.reshape`."""
        wanted = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        result: Array = _function("reshape")(self, wanted, copy=copy)
        return result

    def transpose(self, *axes: Any) -> Array:
        """Axes in another order; reversed if none is given."""
        wanted = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple | list) else axes
        if not wanted:
            wanted = tuple(range(self.ndim))[::-1]
        result: Array = _function("permute_dims")(self, tuple(wanted))
        return result

    def ravel(self) -> Array:
        """All elements in one axis."""
        return self.reshape((-1,))

    flatten = ravel

    def copy(self) -> Array:
        """An array of its own: assigning to one does not change the other."""
        return Array(self._node)


_METHODS = frozenset(
    [
        "all",
        "any",
        "argmax",
        "argmin",
        "argsort",
        "clip",
        "conj",
        "cumulative_sum",
        "cumsum",
        "cumprod",
        "diagonal",
        "dot",
        "max",
        "mean",
        "min",
        "nonzero",
        "prod",
        "repeat",
        "round",
        "searchsorted",
        "sort",
        "squeeze",
        "std",
        "sum",
        "swapaxes",
        "take",
        "trace",
        "var",
    ]
)


def _function(name: str) -> Callable[..., Any]:
    import agentic_ray.array as namespace

    function: Callable[..., Any] = getattr(namespace, name)
    return function


def _call(name: str, *args: Any) -> Array:
    result: Array = _function(name)(*args)
    return result


def _binary(name: str, left: Any, right: Any) -> Array:
    for side in (left, right):
        if not isinstance(side, Array | bool | int | float | complex | np.ndarray | np.generic):
            return NotImplemented  # type: ignore[no-any-return]
    return _call(name, left, right)


def _rebuild(array: NDArray, chunks: Chunks, device: str) -> Array:
    from agentic_ray.array.core.node import data

    return Array(data(array, chunks, device))


def check_device(device: Any) -> str | None:
    """``device`` if it can be computed on.

    Raises
    ------
    InvalidArgumentError
        It is neither ``"cpu"`` nor ``"gpu"``.
    """
    if device is None or device in DEVICES:
        return device  # type: ignore[no-any-return]
    raise InvalidArgumentError(f"device must be 'cpu' or 'gpu', not {device!r}")


def _move_kernel(xp: Any, x: Any) -> Any:
    return x


def _move_op() -> Any:
    from agentic_ray.array.core.build import blockwise_op

    return blockwise_op("to_device", _move_kernel, 0.0)


_MOVE = _move_op()
