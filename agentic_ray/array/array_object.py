"""The `Array` that users hold: a handle on an expression, with operators and conversions.

Operators are in `operators`, methods in `methods`, the hooks for other libraries in `interchange`,
the meaning of an index in `indexing`; this module holds an array's own properties, its conversion
to values, and the sharing of assignments between views.
"""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from agentic_ray.array.callers import is_as_strided, is_statement
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import blockwise_op, strict_operand
from agentic_ray.array.core.chunks import Chunks, Shape
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import SMALL_ELEMENTS, DType, NDArray, Node, data, make
from agentic_ray.array.core.views import rechunk
from agentic_ray.array.flags import Flags
from agentic_ray.array.interchange import (
    arrow_array,
    arrow_c_array,
    dlpack,
    dlpack_device,
    to_numpy,
)
from agentic_ray.array.meeting import meet_xarray
from agentic_ray.array.operators import divided, forward, in_place, reflected, refuse_cast, unary
from agentic_ray.array.viewing import ComplexPart, Permutation, View, unmade
from agentic_ray.errors import InvalidArgumentError
from agentic_ray.pictures import Drawing

DEVICES = ("cpu", "gpu")
COPIED_BYTES = 1 << 20
"""Values up to this size are returned as copies; larger ones of leaves as read-only views."""


class Array:
    """A chunked, lazy array. Make one with the creation functions, `asarray` or `from_numpy`.

    Nothing is computed until a value is asked for: by `compute`, by conversion to NumPy or to a
    Python scalar, or where the shape of a result depends on data.

    An array is a handle on an immutable expression; assigning to it gives it another expression. A
    *view* (a basic index, a transpose, ...) has no expression of its own: it reads its part of the
    array it was taken from, and passes assignments on to that array.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> x = xp.arange(6).reshape(2, 3)
    >>> y = x * 2  # nothing is computed yet
    >>> y.shape, y.dtype, y.chunks
    ((2, 3), dtype('int64'), ((2,), (3,)))
    >>> y.compute()
    array([[ 0,  2,  4],
           [ 6,  8, 10]])
    """

    __slots__ = ("__weakref__", "_base", "_is_cell", "_is_fortran", "_own", "_seen", "_step")
    __array_priority__ = 100.0
    _own: Node
    """The expression; for a view its part of ``_seen``."""
    _base: Array | None
    """For a view: the array it was taken from."""
    _step: View | None
    _seen: Node | None
    """For a view: the expression of ``_base`` that ``_own`` was read from."""
    _is_cell: bool
    """For an array without axes: whether NumPy would have a 0-d array, which can be assigned to, or
    a scalar."""
    _is_fortran: bool
    """For an array that is no view: whether NumPy would have the elements in Fortran order. Chunks
    have no such order; it decides the meaning of ``order="K"`` and ``"A"``, and which reshapes are
    views."""

    def __init__(self, node: Node, *, is_cell: bool = False, is_fortran: bool = False) -> None:
        self._own = node
        self._base = None
        self._is_cell = is_cell
        self._is_fortran = is_fortran

    # --- views ---------------------------------------------------------------------------

    @property
    def _node(self) -> Node:
        base = self._base
        if base is not None:
            whole = base._node
            if whole is not self._seen:
                assert self._step is not None
                self._own = self._step.read(whole)
                self._seen = whole
        return self._own

    @_node.setter
    def _node(self, node: Node) -> None:
        base = self._base
        if base is not None:
            assert self._step is not None
            base._node = self._step.write(base._node, node)
            self._seen = base._node
        self._own = node

    def _view(self, step: View) -> Array:
        """Return the part of this array that ``step`` reads; assignments to either change both."""
        whole = self._node
        view = Array(step.read(whole), is_cell=True)
        view._base, view._step, view._seen = self, step, whole
        return view

    def _computed(self, node: Node) -> None:
        """Hold ``node``, which has the same values, from now on."""
        self._own = node

    @property
    def base(self) -> Array | None:
        """Array that this one is a view of; None if it has values of its own."""
        return self._base

    @property
    def _layout(self) -> NDArray:
        """Array with the memory layout that NumPy would give this one. Never read its values."""
        if self._base is None:
            return unmade(self.shape, self.dtype, is_fortran=self._is_fortran)
        assert self._step is not None
        return self._step.see(self._base._layout)

    @property
    def strides(self) -> Shape:
        """Bytes from one element to the next along each axis, in an array of NumPy's."""
        return self._layout.strides

    @property
    def flags(self) -> Any:
        """Whether the elements lie in C or Fortran order, and may be assigned to. They cannot be
        set."""
        return Flags(self._layout.flags)

    @property
    def _is_record(self) -> bool:
        """Whether this is one record of an array of records: a sequence of its fields' values, as
        NumPy's are."""
        base = self._base
        return base is not None and not self.shape and bool(base.shape) and bool(self.dtype.names)

    @property
    def _is_scalar(self) -> bool:
        return not self._is_cell and not self._own.shape

    # --- known without computing ---------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """Lengths of the axes.

        Raises
        ------
        AttributeError
            The shape is set: another shape is another array, ``x = x.reshape(shape)``.
        """
        return self._own.shape

    @shape.setter
    def shape(self, value: Any) -> None:
        raise AttributeError(
            f"the shape of an Array cannot be set; make another one: x = x.reshape({value!r})"
        )

    @property
    def dtype(self) -> DType:
        return self._own.dtype

    @property
    def ndim(self) -> int:
        return len(self._own.shape)

    @property
    def size(self) -> int:
        return self._own.size

    @property
    def itemsize(self) -> int:
        return self._own.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array, computed or not."""
        return self._own.nbytes

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
        """View with the axes in reverse order."""
        return self._view(Permutation(tuple(range(self.ndim))[::-1]))

    @property
    def mT(self) -> Array:
        """View with the last two axes exchanged.

        Raises
        ------
        ValueError
            The array has fewer than two axes.
        """
        if self.ndim < 2:
            raise ValueError(f"x.mT needs at least 2 axes, not {self.ndim}")
        order = (*range(self.ndim - 2), self.ndim - 1, self.ndim - 2)
        return self._view(Permutation(order))

    @property
    def real(self) -> Array:
        """View of the real part; assigning to it changes this array."""
        return self._view(ComplexPart("real"))

    @real.setter
    def real(self, value: Any) -> None:
        self._view(ComplexPart("real"))[...] = value

    @property
    def imag(self) -> Array:
        """View of the imaginary part; assigning to it changes this array."""
        return self._view(ComplexPart("imag"))

    @imag.setter
    def imag(self, value: Any) -> None:
        if self.dtype.kind != "c":
            raise TypeError("array does not have imaginary part to set")
        self._view(ComplexPart("imag"))[...] = value

    def __len__(self) -> int:
        if not self.shape:
            if self._is_record:
                return len(self.dtype.names or ())
            raise TypeError("len() of unsized object")
        return self.shape[0]

    # --- text ----------------------------------------------------------------------------

    def _shown(self) -> NDArray | None:
        """Return the values, if they are known, or few and quick to compute here; else None."""
        node = self._node
        if node.value is None and node.op.kind == "data":
            return node.params[0].value  # type: ignore[no-any-return]
        if node.value is None and not (node.size <= SMALL_ELEMENTS and evaluate.is_quick(node)):
            return None
        return evaluate.value(node)

    def __repr__(self) -> str:
        where = "" if self.device == "cpu" else f", device={self.device!r}"
        values = self._shown()
        if values is not None:
            text = np.array2string(values, separator=", ", prefix="Array(")
            return f"Array({text}, dtype={self.dtype}{where})"
        blocks = " × ".join(map(str, self.numblocks)) or "1"
        state = "persisted" if self._node.op.kind == "stored" else "not computed"
        return (
            f"<Array shape={self.shape} dtype={self.dtype} chunks={blocks} "
            f"nbytes={self.nbytes:,}{where}, {state}>"
        )

    def __str__(self) -> str:
        values = self._shown()
        return repr(self) if values is None else str(values[()])

    def __format__(self, spec: str) -> str:
        if self.shape or not spec:
            if spec:
                raise TypeError("a format can only be given for arrays without axes")
            return str(self)
        return format(evaluate.value(self._node)[()], spec)

    def _repr_html_(self) -> str:
        from agentic_ray.array.display import html  # display imports the rewriting rules

        return html(self)

    # --- values --------------------------------------------------------------------------

    def compute(self, *, progress: bool | None = None) -> NDArray:
        """Compute the values and return them as a NumPy array of the caller's own.

        Parameters
        ----------
        progress : bool, optional
            Whether to show a progress bar; default: where a person watches and it takes long.
        """
        node = self._node
        value = evaluate.values([node], progress=progress)[0]
        return np.array(value) if node.value is value or not value.flags.owndata else value

    def persist(self) -> Array:
        """Compute now and keep the chunks where they were made; this array then holds them."""
        self._computed(evaluate.persist([self._node])[0])
        return self

    def rechunk(self, chunks: Any = "auto", *, balance: bool = False) -> Array:
        """Return an array of the same values cut in other chunks.

        Parameters
        ----------
        chunks
            As in `asarray`; in a dict, axes that are not named stay as they are.
        balance : bool
            Whether to make the chunks along each axis as equal as possible, in the same number.
        """
        node = self._node
        if isinstance(chunks, dict):
            chunks = {**dict(enumerate(node.chunks)), **grids.by_axis(chunks, node.ndim)}
        wanted = grids.normalize(chunks, node.shape, node.dtype)
        return Array(rechunk(node, grids.balanced(wanted) if balance else wanted), is_cell=True)

    def explain(self, *, steps: bool = False) -> str:
        """Return the plan before and after optimisation, with predicted costs, as text.

        Parameters
        ----------
        steps : bool
            Whether to list also the inputs and the work of each kind of task.
        """
        from agentic_ray.array.display import explain  # display imports the rewriting rules

        return explain(self, steps=steps)

    def visualize(self, path: str | os.PathLike[str] | None = None, *, most: int = 24) -> Drawing:
        """Draw the tasks that computing the array would run; compute nothing.

        Parameters
        ----------
        path : path, optional
            File to write the drawing to as well, which ends with ``.svg`` or ``.html``.
        most : int
            With more tasks, one box stands for all tasks of one operation that are equally far
            from the inputs.

        Raises
        ------
        InvalidArgumentError
            The path has another ending, or there are too many tasks even so.

        Examples
        --------
        >>> import agentic_ray.array as xp
        >>> (xp.ones((4, 4), chunks=2) + 1).sum(axis=0).visualize()
        Drawing(title='... tasks for float64 (4,)')
        """
        from agentic_ray.array.display import visualize  # display imports the rewriting rules

        return visualize(self, path, most)

    def to_device(self, device: str, /, *, stream: Any = None) -> Array:
        """Return an array of the same values on which ``device`` does further work.

        Raises
        ------
        ValueError
            There is no such device, or a stream was given.
        """
        if stream is not None:
            raise ValueError("streams are managed by the executors; leave stream out")
        device = check_device(device) or "cpu"
        node = self._node
        if device == node.device:
            return self
        return Array(make(_MOVE, (node,), (), node.shape, node.dtype, node.chunks, device))

    def copy(self, order: str = "C") -> Array:
        """Return an array of its own: assigning to one does not change the other."""
        order = check_order(order)
        return Array(self._node, is_cell=self._is_cell, is_fortran=is_fortran(order, self._layout))

    def item(self, *args: Any) -> Any:
        """Return one element as a Python scalar: the only one, or the one at a flat position or
        index.

        Raises
        ------
        ValueError
            No position was given, and there is not exactly one element.
        IndexError
            The position lies outside.
        """
        if not args and self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        if not args:
            return evaluate.value(self._node).item()
        place = args[0] if len(args) == 1 else args
        if not isinstance(place, tuple):
            place = np.unravel_index(_checked_place(place, self.size), self.shape)
        return self[tuple(int(at) for at in place)].item()

    def tolist(self) -> Any:
        """Return the values as nested lists."""
        return evaluate.value(self._node).tolist()

    def _scalar(self, kind: str) -> Any:
        if self.shape:
            raise TypeError(f"only 0-dimensional arrays convert to {kind}, not shape {self.shape}")
        value = evaluate.value(self._node)
        return value.item() if self._is_cell else value[()]

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                "the truth value of an array with more than one element (or none) is "
                "ambiguous; use any() or all()"
            )
        return bool(evaluate.value(self._node).item())

    def __int__(self) -> int:
        return int(self._scalar("int"))

    def __float__(self) -> float:
        return float(self._scalar("float"))

    def __complex__(self) -> complex:
        return complex(self._scalar("complex"))

    def __index__(self) -> int:
        if self.dtype.kind not in "iu" or self.shape:
            raise TypeError("only 0-dimensional integer arrays can be used as an index")
        return int(self._scalar("index"))

    def __round__(self, ndigits: int | None = None) -> Any:
        return round(self._scalar("a number to round"), ndigits)

    def __hash__(self) -> int:
        if self.shape or self._is_cell:
            raise TypeError("unhashable type: 'Array' (only results without axes have a hash)")
        return hash(evaluate.value(self._node)[()])

    def __iter__(self) -> Iterator[Array]:
        if not self.shape:
            if self._is_record:
                return (self[name] for name in self.dtype.names or ())
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    def __contains__(self, value: object) -> bool:
        if self._is_record:
            return any(bool(field == value) for field in self)
        return bool((self == value).any())

    def _in_memory(self) -> NDArray:
        """Return the values as NumPy would hold them: with the strides that `strides` tells, within
        the array that this one is a view of. The result cannot be written to."""
        if self._base is None:
            value = np.array(self.__array__(), order="F" if self._is_fortran else "C")
            value.flags.writeable = False
            return value
        assert self._step is not None
        return self._step.see(self._base._in_memory())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        if is_as_strided(1):  # NumPy's function reads memory around the view
            return self._in_memory()
        node = self._node
        value = evaluate.values([node])[0]
        if dtype is not None and np.dtype(dtype) != value.dtype:
            if copy is False:
                raise ValueError("a conversion of dtype needs a copy")
            return value.astype(dtype)
        shared = node.value is value or node.op.kind == "data"
        if copy or (copy is None and shared and value.nbytes <= COPIED_BYTES):
            return np.array(value)
        if shared:
            value = value.view()
            value.flags.writeable = False
        return value

    to_numpy, __arrow_array__, __arrow_c_array__ = to_numpy, arrow_array, arrow_c_array
    __dlpack__, __dlpack_device__ = dlpack, dlpack_device

    @property
    def __array_namespace__(self) -> Callable[..., types.ModuleType]:
        """Return the namespace of these arrays: ``x.__array_namespace__(*, api_version=None)``."""
        meet_xarray()  # xarray asks for this before it does anything with an array
        return namespace_of

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from agentic_ray.array.protocols import array_ufunc  # it is built on the functions

        return array_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, func: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        from agentic_ray.array.protocols import array_function  # it is built on the functions

        return array_function(func, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        values = self.__array__(copy=True)
        return _rebuild, (values, self.chunks, self.device, self._is_cell, self._layout.flags.fnc)

    def __copy__(self) -> Array:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Array:
        return self.copy()

    # --- indexing: see `agentic_ray.array.indexing` and `assigning` -----------------------

    def __getitem__(self, key: Any, /) -> Array:
        from agentic_ray.array.indexing import getitem  # it is built on Array

        return getitem(self, key)

    def __setitem__(self, key: Any, value: Any, /) -> None:
        from agentic_ray.array.assigning import setitem  # it is built on Array

        if (
            isinstance(value, Array)
            and value._base is self
            and value._seen is not self._node
            and not is_statement(1)
        ):
            # Generators of NumPy's swap items in native code, as x[i], x[j] = x[j], x[i]. They rely
            # on the values that they have taken, and a view changes after the first half.
            value = Array(value._own)
        setitem(self, key, value)

    def __delitem__(self, key: Any) -> None:
        raise ValueError("cannot delete array elements; delete(x, key) makes an array without them")

    # --- operators: see `agentic_ray.array.operators` ------------------------------------

    __add__, __radd__, __iadd__ = forward("add"), reflected("add"), in_place("add")
    __sub__, __rsub__ = forward("subtract"), reflected("subtract")
    __isub__ = in_place("subtract")
    __mul__, __rmul__ = forward("multiply"), reflected("multiply")
    __imul__ = in_place("multiply")
    __truediv__, __rtruediv__ = forward("divide"), reflected("divide")
    __itruediv__ = in_place("divide")
    __floordiv__, __rfloordiv__ = forward("floor_divide"), reflected("floor_divide")
    __ifloordiv__ = in_place("floor_divide")
    __mod__, __rmod__ = forward("remainder"), reflected("remainder")
    __imod__ = in_place("remainder")
    __divmod__, __rdivmod__ = divided(reflected=False), divided(reflected=True)
    __pow__, __rpow__, __ipow__ = forward("pow"), reflected("pow"), in_place("pow")
    __matmul__, __rmatmul__ = forward("matmul"), reflected("matmul")
    __imatmul__ = in_place("matmul")
    __and__, __rand__ = forward("bitwise_and"), reflected("bitwise_and")
    __iand__ = in_place("bitwise_and")
    __or__, __ror__ = forward("bitwise_or"), reflected("bitwise_or")
    __ior__ = in_place("bitwise_or")
    __xor__, __rxor__ = forward("bitwise_xor"), reflected("bitwise_xor")
    __ixor__ = in_place("bitwise_xor")
    __lshift__, __rlshift__ = forward("bitwise_left_shift"), reflected("bitwise_left_shift")
    __ilshift__ = in_place("bitwise_left_shift")
    __rshift__, __rrshift__ = forward("bitwise_right_shift"), reflected("bitwise_right_shift")
    __irshift__ = in_place("bitwise_right_shift")
    __eq__, __ne__ = forward("equal"), forward("not_equal")  # type: ignore[assignment]
    __lt__, __le__ = forward("less"), forward("less_equal")
    __gt__, __ge__ = forward("greater"), forward("greater_equal")
    __neg__, __pos__ = unary("negative"), unary("positive")
    __abs__, __invert__ = unary("abs"), unary("bitwise_invert")

    def _assign(self, result: Array, name: str = "positive") -> Array:
        """Become ``result``, which the in-place operator ``name`` made: same shape, own dtype.

        Raises
        ------
        TypeError
            NumPy's own error: the result cannot be cast to the dtype.
        """
        if result.shape != self.shape:
            raise ValueError(
                f"non-broadcastable output: in-place operation on shape {self.shape} gives "
                f"shape {result.shape}"
            )
        node = result._node
        if node.dtype != self.dtype:
            if not np.can_cast(node.dtype, self.dtype, "same_kind"):
                refuse_cast(name, node.dtype, self.dtype)
            node = cast(node, self.dtype)
        self._node = node
        return self

    if TYPE_CHECKING:
        # NumPy's methods are the functions of the namespace: `agentic_ray.array.methods`.
        def __getattr__(self, name: str) -> Any: ...


def namespace_of(*, api_version: str | None = None) -> types.ModuleType:
    """Return the namespace of arrays, if it is one of that version of the standard.

    Raises
    ------
    ValueError
        The namespace has another version.
    """
    import agentic_ray.array as namespace  # the package that this module is part of
    from agentic_ray.array.inspection import API_VERSIONS

    if api_version is not None and api_version not in API_VERSIONS:
        raise ValueError(f"no version {api_version!r}; there are {', '.join(API_VERSIONS)}")
    return namespace


def is_fortran(order: str, like: NDArray) -> bool:
    """Whether a copy of ``like`` in ``order`` has Fortran order. NumPy's ``"K"`` can keep an order
    that is neither C nor Fortran; it becomes C order here."""
    if order in "AK":
        return bool(like.flags.fnc)
    return order == "F" and like.ndim > 1


def viewed(array: Any, step: View) -> Array:
    """Read ``step`` from ``array``: a view of an Array, else a new array of the values."""
    if isinstance(array, Array):
        return array._view(step)
    return Array(step.read(strict_operand(array)), is_cell=True)


def _checked_place(place: Any, size: int) -> int:
    if not -size <= place < size:
        raise IndexError(f"index {place} is out of bounds for size {size}")
    return int(place) % size


def _rebuild(
    array: NDArray, chunks: Chunks, device: str, is_cell: bool = False, is_fortran: bool = False
) -> Array:
    return Array(data(array, chunks, device), is_cell=is_cell, is_fortran=is_fortran)


def check_device(device: Any) -> str | None:
    """Return ``device`` if it can be computed on.

    Raises
    ------
    InvalidArgumentError
        ``device`` is neither ``"cpu"`` nor ``"gpu"``.
    """
    if device is None or device in DEVICES:
        return device  # type: ignore[no-any-return]
    raise InvalidArgumentError(f"device must be 'cpu' or 'gpu', not {device!r}")


def check_order(order: Any, allowed: str = "CFAK") -> str:
    """Check NumPy's ``order`` for functions whose values it does not change: chunks have no order
    in memory that a user could see.

    Raises
    ------
    ValueError
        ``order`` is none of the letters.
    """
    if order is None:
        return "K"
    if isinstance(order, str) and order.upper() in allowed and len(order) == 1:
        return order.upper()
    raise ValueError(f"order must be one of {', '.join(map(repr, allowed))} (got {order!r})")


def _move_kernel(xp: Any, x: Any) -> Any:
    return x


_MOVE = blockwise_op("to_device", _move_kernel, 0.0)
