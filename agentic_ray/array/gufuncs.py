"""`apply_gufunc`, `vectorize` and `frompyfunc`: users' functions over loop axes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import gufunc, gufunc_op, gufunc_picks, strict_operand
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import DType, Node
from agentic_ray.array.core.program import as_array
from agentic_ray.array.core.views import permuted
from agentic_ray.array.manipulation import expand_dims
from agentic_ray.array.userfunctions import (
    UserKernel,
    checked,
    numeric_dtype,
    probed,
    sample,
    user_kernel,
)
from agentic_ray.errors import BlockResultError, InvalidArgumentError, InvalidTypeError
from agentic_ray.graph import name_of

Cores = list[list[str]]


def apply_gufunc(
    function: Callable[..., Any],
    signature: str,
    *arrays: Any,
    axes: Sequence[Any] | None = None,
    axis: int | None = None,
    keepdims: bool = False,
    output_dtypes: Any = None,
    output_sizes: dict[str, int] | None = None,
    vectorize: bool = False,
    allow_rechunk: bool = True,
    meta: Any = None,
    **options: Any,
) -> Array | tuple[Array, ...]:
    """Apply ``function`` over the loop axes of its operands, as NumPy's generalised ufuncs.

    Parameters
    ----------
    function : callable or codelet
        Called with blocks whose core axes are last and whole, captured at this call (see
        `map_blocks`). With several outputs it returns a tuple.
    signature : str
        Core axes of operands and outputs, such as ``"(i),(i)->()"``.
    *arrays : Array or numpy.ndarray
        Operands; their loop axes are broadcast. Core axes are put in one chunk.
    axes, axis, keepdims
        As in NumPy's generalised ufuncs: the places of the core axes of each operand and output;
        the one core axis that all operands share; and whether it stays, with length 1.
    output_dtypes : dtype or sequence of dtype, optional
        Dtypes of the outputs; None: found by a call on operands of one element.
    output_sizes : dict, optional
        Lengths of core axes that no operand has.
    vectorize : bool
        Whether the function takes one set of core axes at a time: then it is looped over.
    allow_rechunk : bool
        False: core axes in several chunks are refused.
    meta : numpy.ndarray or tuple of them, optional
        Arrays with the dtypes of the outputs, if ``output_dtypes`` does not say them.
    **options
        Passed on to ``function``.

    Raises
    ------
    InvalidArgumentError, InvalidTypeError
        The signature cannot be read, or does not fit the operands; or axes do not exist.
    SerializationError
        As in `map_blocks`.
    BlockResultError
        When values are computed: an output is missing, or has a wrong shape or dtype.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> x = xp.reshape(xp.arange(6.0), (2, 3))
    >>> xp.apply_gufunc(lambda a: a.max(axis=-1), "(i)->()", x).compute()
    array([2., 5.])
    """
    inputs, outputs = _parse(signature)
    nodes = [strict_operand(x if isinstance(x, Array) else np.asarray(x)) for x in arrays]
    if len(nodes) != len(inputs):
        raise InvalidArgumentError(f"{signature!r} takes {len(inputs)} arrays, not {len(nodes)}")
    where = _axes(axes, axis, keepdims, inputs, outputs)
    for node, core in zip(nodes, inputs, strict=True):
        if node.ndim < len(core):
            raise InvalidArgumentError(f"{signature!r} does not fit an array of {node.ndim} axes")
    nodes = [_to_end(node, own) for node, own in zip(nodes, where[: len(nodes)], strict=True)]
    sizes = _sizes(nodes, inputs, outputs, output_sizes)
    if not allow_rechunk:
        for node, core in zip(nodes, inputs, strict=True):
            if any(len(lengths) > 1 for lengths in node.chunks[node.ndim - len(core) :]):
                raise InvalidArgumentError(
                    "a core axis is in several chunks (allow_rechunk=False): rechunk it to one"
                )
    dtypes = _said_dtypes(output_dtypes, meta, len(outputs))
    name = name_of(function)
    if vectorize:
        function = Vectorized(function, signature, None if dtypes is None else tuple(dtypes))
    kernel = user_kernel("apply_gufunc", function, options, blocks=len(nodes), name=name)
    if dtypes is None:
        dtypes = _found_dtypes(kernel, nodes, inputs, len(outputs))
    cores = [tuple([sizes[name] for name in core]) for core in outputs]
    counts = tuple([len(core) for core in inputs])
    call = GufuncCall(kernel, tuple(zip(cores, dtypes, strict=True)), counts)
    op = gufunc_op(kernel.name, call, of_user=True)
    made = gufunc(op, nodes, counts, cores[0], dtypes[0])
    parts = [made] if len(outputs) == 1 else gufunc_picks(
        made, list(zip(cores, dtypes, strict=True)))  # fmt: skip
    results: list[Array] = []
    for part, own in zip(parts, where[len(nodes) :], strict=True):
        if keepdims:
            results.append(expand_dims(Array(part), own[0]))
        else:
            results.append(Array(_from_end(part, own)))
    return results[0] if len(outputs) == 1 else tuple(results)


# --- notations of users ------------------------------------------------------------------------


def _parse(signature: str) -> tuple[Cores, Cores]:
    if not isinstance(signature, str):
        raise InvalidTypeError(f"a signature is a string, not {type(signature).__name__}")
    text = re.sub(r"\s", "", signature)
    part = r"\((?:\w+(?:,\w+)*)?\)"
    if not re.fullmatch(rf"{part}(?:,{part})*->{part}(?:,{part})*", text):
        raise InvalidArgumentError(f"not a signature: {signature!r}; write e.g. '(i),(i)->()'")
    left, _, right = text.partition("->")
    inputs, outputs = (
        [[name for name in core.split(",") if name] for core in re.findall(r"\(([^)]*)\)", side)]
        for side in (left, right)
    )
    return inputs, outputs


def _axes(
    axes: Any, axis: int | None, keepdims: bool, inputs: Cores, outputs: Cores
) -> list[tuple[int, ...]]:
    """Return the places of the core axes of each operand and each output."""
    cores = [*inputs, *outputs]
    single = all(len(core) == 1 for core in inputs) and len({core[0] for core in inputs}) == 1
    if keepdims and not (
        len({len(core) for core in inputs}) == 1 and not any(outputs) and len(inputs[0]) == 1
    ):
        raise InvalidArgumentError(
            "keepdims needs one core axis in each operand, and none in the outputs"
        )
    if axis is not None:
        if axes is not None:
            raise InvalidArgumentError("give axis or axes, not both")
        if not single or any(len(core) > 1 for core in outputs):
            raise InvalidArgumentError("axis needs one core axis that all operands share; use axes")
        axes = [(axis,) if core or (keepdims and not core) else () for core in cores]
    if axes is None:
        return [
            tuple(range(-len(core), 0)) if core or not keepdims else (-1,) for core in cores
        ]  # fmt: skip
    given = [(entry,) if isinstance(entry, int | np.integer) else tuple(entry) for entry in axes]
    if len(given) == len(inputs) and not any(outputs):
        given += [given[0] if keepdims else () for _ in outputs]
    if len(given) != len(cores):
        raise InvalidArgumentError(f"axes has {len(given)} entries, expected {len(cores)}")
    for entry, core in zip(given, cores, strict=True):
        wanted = 1 if keepdims else len(core)
        if len(entry) != wanted:
            raise InvalidArgumentError(f"axes: {entry} does not name {wanted} core axes")
    return given


def _to_end(node: Node, axes: tuple[int, ...]) -> Node:
    """Move the core axes of ``node`` to the end."""
    at = [normalize_axis_index(axis, node.ndim) for axis in axes]
    if len(set(at)) != len(at):
        raise InvalidArgumentError(f"axes: {axes} names an axis twice")
    return permuted(node, (*[axis for axis in range(node.ndim) if axis not in at], *at))


def _from_end(node: Node, axes: tuple[int, ...]) -> Node:
    """Move the core axes of ``node``, which are last, to where they are wanted."""
    at = [normalize_axis_index(axis, node.ndim) for axis in axes]
    if len(set(at)) != len(at):
        raise InvalidArgumentError(f"axes: {axes} names an axis twice")
    rest = iter(range(node.ndim - len(at)))
    last = {axis: node.ndim - len(at) + i for i, axis in enumerate(at)}
    return permuted(node, tuple([last[i] if i in last else next(rest) for i in range(node.ndim)]))


def _sizes(
    nodes: Sequence[Node], inputs: Cores, outputs: Cores, given: dict[str, int] | None
) -> dict[str, int]:
    sizes: dict[str, int] = dict(given or {})
    for name, length in sizes.items():
        if not isinstance(length, int | np.integer) or length < 0:
            raise InvalidArgumentError(f"output_sizes[{name!r}] must be a length, not {length!r}")
    for node, core in zip(nodes, inputs, strict=True):
        for name, length in zip(core, node.shape[node.ndim - len(core) :], strict=True):
            if sizes.setdefault(name, length) != length:
                raise InvalidArgumentError(f"core axis {name!r} is {sizes[name]} and {length} long")
    unknown = {name for core in outputs for name in core} - set(sizes)
    if unknown:
        raise InvalidArgumentError(f"lengths of {sorted(unknown)} are not known: output_sizes=")
    return sizes


def _said_dtypes(given: Any, meta: Any, count: int) -> list[DType] | None:
    if given is None and meta is not None:
        metas = meta if isinstance(meta, list | tuple) else (meta,)
        if not all(isinstance(entry, np.ndarray) for entry in metas):
            raise InvalidTypeError("apply_gufunc: meta must be a NumPy array, or a tuple of them")
        given = [entry.dtype for entry in metas]
    if given is None:
        return None
    entries = list(given) if isinstance(given, list | tuple) else [given] * count
    if len(entries) != count:
        raise InvalidArgumentError(f"{len(entries)} dtypes for {count} outputs")
    return [numeric_dtype("apply_gufunc", entry) for entry in entries]


def _found_dtypes(
    kernel: UserKernel, nodes: Sequence[Node], inputs: Cores, count: int
) -> list[DType]:
    blocks = [sample(node, (1,) * len(core)) for node, core in zip(nodes, inputs, strict=True)]
    found = probed(kernel, blocks, {})
    values = _outputs(found, count, kernel.name)
    return [numeric_dtype(kernel.name, as_array(np, value).dtype) for value in values]


# --- running it --------------------------------------------------------------------------------


def _outputs(result: Any, count: int, name: str) -> tuple[Any, ...]:
    if count == 1 and not isinstance(result, tuple):
        return (result,)
    if not isinstance(result, tuple | list) or len(result) != count:
        got = f"{len(result)} values" if isinstance(result, tuple | list) else "one value"
        raise BlockResultError(f"{name}: the function returned {got}, expected {count}")
    return tuple(result)


@dataclass(frozen=True, slots=True)
class GufuncCall:
    """A call of a user's kernel for one block of the loop.

    Parameters
    ----------
    outputs : tuple of (shape, dtype)
        Core shape and dtype of each output.
    cores : tuple of int
        Number of core axes of each operand.
    """

    kernel: UserKernel
    outputs: tuple[tuple[Shape, DType], ...]
    cores: tuple[int, ...]

    @property
    def host_only(self) -> bool:
        return self.kernel.host_only

    @property
    def size_bytes(self) -> int:
        return self.kernel.size_bytes

    def __call__(self, xp: Any, *blocks: Any) -> Any:
        loop = np.broadcast_shapes(
            *[b.shape[: b.ndim - n] for b, n in zip(blocks, self.cores, strict=True)]
        )
        name = self.kernel.name
        values = _outputs(self.kernel(xp, *blocks), len(self.outputs), name)
        result = tuple(
            [
                checked(xp, value, (*loop, *core), dtype, name, (), _hint(i, len(values)))
                for i, (value, (core, dtype)) in enumerate(zip(values, self.outputs, strict=True))
            ]
        )
        return result if len(result) > 1 else result[0]


def _hint(number: int, count: int) -> str:
    which = f" for output {number}" if count > 1 else ""
    return f"{which}: the loop axes of the block, then the core axes of the signature"


@dataclass(frozen=True, slots=True, eq=False)
class Vectorized:
    """A function of one set of core axes, looped over blocks."""

    function: Callable[..., Any]
    signature: str
    dtypes: tuple[DType, ...] | None

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.function

    def __call__(self, *blocks: Any, **options: Any) -> Any:
        otypes = None if self.dtypes is None else [dtype.str for dtype in self.dtypes]
        looped = np.vectorize(
            functools.partial(self.function, **options), otypes=otypes, signature=self.signature
        )
        return looped(*blocks)


# --- element by element --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """A function of elements, looped over blocks that stand in some of its arguments.

    ``places`` are positions and names of the arguments that are blocks. Without ``otypes`` the
    dtype is the one that holds all values.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]
    places: tuple[int | str, ...]
    excluded: frozenset[int | str]
    otypes: str | None
    cache: bool

    @property
    def __name__(self) -> str:
        return name_of(self.function)

    def __call__(self, *blocks: Any) -> Any:
        args, options = list(self.args), dict(self.options)
        for place, block in zip(self.places, blocks, strict=True):
            if isinstance(place, str):
                options[place] = block
            else:
                args[place] = block
        if self.otypes is not None:
            return self._looped(self.otypes)(*args, **options)
        if any(np.size(block) == 0 for block in blocks):
            return np.empty(np.broadcast_shapes(*[np.shape(block) for block in blocks]))
        count = 1
        first = self._looped("O")(
            *[self._first(i, value) for i, value in enumerate(args)],
            **{name: self._first(name, value) for name, value in options.items()},
        ).item()
        if isinstance(first, tuple):
            count = len(first)
        found = self._looped("O" * count)(*args, **options)
        if count == 1:
            return _together(found)
        return tuple(map(_together, found))

    def _looped(self, otypes: str) -> np.vectorize:
        return np.vectorize(
            self.function, otypes=otypes, excluded=set(self.excluded), cache=self.cache
        )

    def _first(self, place: int | str, value: Any) -> Any:
        return value if place in self.excluded else np.asarray(value).flat[0]


def _together(objects: Any) -> Any:
    """Make an array of Python objects in the dtype that holds them all."""
    return np.asarray(objects.tolist()).reshape(objects.shape)


class vectorize:
    """Turn a function of elements into one of arrays, as ``numpy.vectorize``, block by block.

    Parameters
    ----------
    pyfunc : callable
        Function; captured when it is called with arrays (see `map_blocks`).
    otypes, doc, excluded, cache, signature
        As in NumPy. Without ``otypes`` the dtype is found by a call with the first elements, which
        are computed for that; values that it cannot hold are refused.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> larger = xp.vectorize(lambda a, b: a if a > b else b)
    >>> larger(xp.asarray([1, 5, 2]), 3).compute()
    array([3, 5, 3])
    """

    def __init__(
        self,
        pyfunc: Callable[..., Any] | None = None,
        otypes: Any = None,
        doc: str | None = None,
        excluded: Iterable[int | str] | None = None,
        cache: bool = False,
        signature: str | None = None,
    ) -> None:
        if pyfunc is not None and not callable(pyfunc):
            raise InvalidTypeError(f"vectorize needs a function, not {type(pyfunc).__name__}")
        self.pyfunc = pyfunc
        self.excluded = frozenset(excluded or ())
        self.cache = cache
        self.signature = signature
        self.otypes: str | None = None
        self._doc = doc
        if otypes is not None:
            try:
                self.otypes = "".join([np.dtype(entry).char for entry in otypes])
            except TypeError as error:
                raise InvalidTypeError(f"vectorize: invalid otypes: {error}") from None
        if pyfunc is not None:
            self._named(pyfunc)

    def _named(self, pyfunc: Callable[..., Any]) -> None:
        self.__name__ = getattr(pyfunc, "__name__", name_of(pyfunc))
        self.__doc__ = self._doc if self._doc is not None else pyfunc.__doc__

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self.pyfunc is None:  # as a decorator with arguments
            (function,) = args
            self.pyfunc = function
            self._named(function)
            return self
        if not any(isinstance(value, Array) for value in (*args, *options.values())):
            plain = np.vectorize(
                self.pyfunc, otypes=self.otypes, excluded=set(self.excluded), cache=self.cache,
                signature=self.signature,
            )  # fmt: skip
            return plain(*args, **options)
        if self.signature is not None:
            if self.excluded:
                raise InvalidArgumentError("vectorize: excluded and signature do not go together")
            return apply_gufunc(
                self.pyfunc, self.signature, *args, output_dtypes=self._dtypes(), vectorize=True,
                **options,
            )  # fmt: skip
        return self._elementwise(args, options)

    def _dtypes(self) -> list[DType] | None:
        return None if self.otypes is None else [np.dtype(code) for code in self.otypes]

    def _elementwise(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        assert self.pyfunc is not None
        arrays: list[Any] = []
        places: list[int | str] = []
        fixed = list(args)
        named = dict(options)
        given: list[tuple[int | str, Any]] = [*enumerate(args), *options.items()]
        for place, value in given:
            if place in self.excluded or (not isinstance(value, Array) and np.ndim(value) == 0):
                continue
            places.append(place)
            arrays.append(value if isinstance(value, Array) else np.asarray(value))
            if isinstance(place, str):
                named[place] = None
            else:
                fixed[place] = None
        spread = Spread(
            self.pyfunc, tuple(fixed), named, tuple(places), self.excluded, self.otypes, self.cache
        )
        dtypes = self._dtypes()
        if dtypes is None:
            if any(array.size == 0 for array in arrays):
                raise ValueError("cannot call `vectorize` on size 0 inputs unless `otypes` is set")
            first = [np.asarray(array[(slice(0, 1),) * array.ndim]) for array in arrays]
            found = spread(*first)
            dtypes = [value.dtype for value in (found if isinstance(found, tuple) else (found,))]
        signature = ",".join(["()"] * len(arrays)) + "->" + ",".join(["()"] * len(dtypes))
        return apply_gufunc(spread, signature, *arrays, output_dtypes=dtypes)


class frompyfunc:
    """Turn a function of elements into one of arrays, with so many arguments and results, as
    ``numpy.frompyfunc``.

    Over arrays of this package, results have the dtype of a call with the first elements. NumPy's
    results are Python objects, which these arrays do not hold.

    Parameters
    ----------
    func : callable
    nin, nout : int

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.frompyfunc(lambda a, b: a % b, 2, 1)(xp.asarray([5, 7]), 3).compute()
    array([2, 1])
    """

    def __init__(
        self, func: Callable[..., Any], /, nin: int, nout: int, *, identity: Any = None
    ) -> None:
        if not callable(func):
            raise InvalidTypeError(f"frompyfunc needs a function, not {type(func).__name__}")
        if nin < 1 or nout < 1:
            raise InvalidArgumentError("frompyfunc needs at least one argument and one result")
        self.nin, self.nout = nin, nout
        self._plain = np.frompyfunc(func, nin, nout, identity=identity)
        self._spread = vectorize(func)

    def __call__(self, *args: Any) -> Any:
        if len(args) != self.nin:
            raise InvalidTypeError(f"expected {self.nin} arguments, not {len(args)}")
        if not any(isinstance(arg, Array) for arg in args):
            return self._plain(*args)
        found = self._spread(*args)
        count = len(found) if isinstance(found, tuple) else 1
        if count != self.nout:
            raise BlockResultError(f"the function returned {count} values, expected {self.nout}")
        return found
