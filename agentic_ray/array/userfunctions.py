"""Users' functions that are called with blocks: captured with their arguments, tried once, checked.

``blocks``, ``overlap`` and ``gufuncs`` decide which blocks a function is called with.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import check_numbers
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import DType, Node
from agentic_ray.array.core.program import as_array
from agentic_ray.array.core.standard import cast, dtype_of, own
from agentic_ray.errors import BlockResultError, InvalidArgumentError, InvalidTypeError
from agentic_ray.graph import Captured, Kernel, accepts_xp, capture, name_of

PLACE_NAMES = ("block_id", "block_info")
"""Names of parameters that are passed the place of the block."""


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A user's function with the arguments that are the same for all blocks.

    Parameters
    ----------
    fixed : tuple of (int, value)
        Positional arguments by their place, in ascending order; blocks take the other places.
    """

    function: Callable[..., Any]
    fixed: tuple[tuple[int, Any], ...]
    options: dict[str, Any]

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.function

    def __call__(self, *blocks: Any, **more: Any) -> Any:
        args = list(blocks)
        for place, value in self.fixed:
            args.insert(place, value)
        return self.function(*args, **{**self.options, **more})


@dataclass(frozen=True, slots=True)
class UserKernel:
    """A user's function of blocks as it was captured; it gets ``xp`` if it asks for it.

    ``on_gpu`` is the function that is called on GPUs; without it blocks are never sent to one.
    ``name`` is the operation with the function's name.
    """

    name: str
    function: Callable[..., Any]
    on_gpu: Callable[..., Any] | None

    @property
    def host_only(self) -> bool:
        return self.on_gpu is None

    @property
    def size_bytes(self) -> int:
        """Bytes held of the function and of the data it sees."""
        parts = (self.function, self.on_gpu)
        return sum(part.size_bytes for part in parts if isinstance(part, Captured))

    def takes(self, name: str) -> bool:
        """Whether the function has a parameter of this name."""
        return isinstance(self.function, Captured) and name in self.function.keywords

    def __call__(self, xp: Any, *blocks: Any, **more: Any) -> Any:
        function = self.function if xp is np or self.on_gpu is None else self.on_gpu
        if accepts_xp(function):
            more["xp"] = own(xp)
        if xp is not np:
            return function(*blocks, **more)
        # Other tasks use the same blocks: a function that writes to them gets copies.
        try:
            return function(*map(_read_only, blocks), **more)
        except ValueError as error:
            if "read-only" not in str(error):
                raise
        return function(*map(np.array, blocks), **more)


def _read_only(block: Any) -> Any:
    view = np.asarray(block).view()
    view.flags.writeable = False
    return view


def user_kernel(
    operation: str,
    function: Any,
    options: dict[str, Any],
    *,
    blocks: int,
    fixed: Sequence[tuple[int, Any]] = (),
    name: str | None = None,
) -> UserKernel:
    """Capture ``function`` as it is now, with everything that it sees and is given.

    Parameters
    ----------
    blocks : int
        Number of blocks that it will be called with.

    Raises
    ------
    InvalidTypeError
        ``function`` cannot be called, or not with these arguments.
    SerializationError
        ``function``, or something that it sees, cannot be sent to another process.
    """
    if not callable(function):
        raise InvalidTypeError(
            f"{operation}: expected a function first, not {type(function).__name__}"
        )
    values = [(place, _value(value)) for place, value in fixed]
    named = {key: _value(value) for key, value in options.items()}
    _check_arguments(operation, function, blocks + len(values), named)

    def taken(implementation: Any) -> Any:
        if not values and not named:
            return capture(implementation)
        return capture(Given(implementation, tuple(values), named))

    label = f"{operation}.{name or name_of(function)}"
    if isinstance(function, Kernel):
        codelet = function.codelet
        return UserKernel(
            label, taken(codelet.cpu), None if codelet.gpu is None else taken(codelet.gpu)
        )
    here = taken(function)
    return UserKernel(label, here, here if accepts_xp(here) else None)


def _value(argument: Any) -> Any:
    """Return an argument as the function will get it: the values in place of our arrays."""
    return argument.compute() if isinstance(argument, Array) else argument


def _check_arguments(operation: str, function: Any, count: int, options: dict[str, Any]) -> None:
    # Other callables, such as compiled ones, may list parameters that need not be given.
    if not isinstance(function, FunctionType | MethodType | functools.partial | Kernel):
        return
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # many builtins have no signature
        return
    told = {
        name: None for name in (*PLACE_NAMES, "xp") if name in signature.parameters
    }  # fmt: skip
    try:
        signature.bind(*[None] * count, **{**told, **options})
    except TypeError as error:
        raise InvalidTypeError(f"{operation}: {name_of(function)}: {error}") from None


def probed(kernel: UserKernel, samples: Sequence[Any], more: dict[str, Any]) -> Any:
    """Call a user's kernel with blocks of one element, whose result tells dtypes.

    Raises
    ------
    InvalidArgumentError
        The kernel cannot take such blocks: the caller has to name the dtype.
    """
    try:
        with np.errstate(all="ignore"):
            return kernel(np, *samples, **more)
    except Exception as error:  # user code
        raise InvalidArgumentError(
            f"the dtype of the result is not known, since the function failed on a block of one "
            f"element ({type(error).__name__}: {error}); give dtype="
        ) from error


def sample(node: Node, shape: Shape) -> Any:
    """Make a block of ones in the dtype of ``node``."""
    return np.ones(shape, node.dtype)


def numeric_dtype(operation: str, dtype: Any) -> DType:
    """Return ``dtype`` as a NumPy dtype that arrays can have.

    Raises
    ------
    InvalidTypeError
        ``dtype`` is no dtype, or one of Python objects or texts.
    """
    try:
        found: DType = np.dtype(dtype)
    except TypeError as error:
        raise InvalidTypeError(f"{operation}: {error}") from None
    try:
        return check_numbers(found)
    except InvalidTypeError as error:
        raise InvalidTypeError(f"{operation}: {error}") from None


def checked(
    xp: Any, result: Any, shape: Shape, dtype: DType, name: str, where: tuple[int, ...], hint: str
) -> Any:
    """Check a user's result for one block, and return it as an array.

    A result of another dtype is converted if the dtype is of the same kind, or holds every value.

    Raises
    ------
    BlockResultError
        The result has another shape, or a dtype that cannot be converted so.
    """
    block = f"{name}: block {where}" if where else name
    try:
        found = as_array(xp, result)
    except (TypeError, ValueError) as error:
        raise BlockResultError(
            f"{block}: the function returned a {type(result).__name__}, which is no array: {error}"
        ) from error
    if tuple(found.shape) != tuple(shape):
        raise BlockResultError(
            f"{block}: the function returned shape {tuple(found.shape)}, expected {tuple(shape)}"
            f"{hint}"
        )
    returned = dtype_of(found)
    if returned != dtype:
        if not np.can_cast(returned, dtype, "same_kind"):
            raise BlockResultError(
                f"{block}: the function returned dtype {returned}, expected {dtype}, to which "
                f"it cannot be converted safely; say {returned.name} with dtype= "
                "(output_dtypes=, otypes=), or convert in the function"
            )
        found = cast(xp, found, dtype)
    return found
