"""NumPy's universal functions over chunked arrays, as objects that behave as NumPy's do.

`elementwise` lists the functions themselves; ``reduce``, ``accumulate`` and the other methods are
in `ufunc_methods`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.assigning import broadcast_to
from agentic_ray.array.core import standard
from agentic_ray.array.core.build import elementwise, leaf, operand, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import LITERAL, DType, Node, Op
from agentic_ray.array.outputs import check_delivery, delivered, single_out
from agentic_ray.errors import InvalidTypeError


@dataclass(frozen=True, slots=True)
class Named:
    """A kernel that is a function of the array namespace, called by name."""

    name: str

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, xp: Any, *values: Any) -> Any:
        return getattr(xp, self.name)(*values)

    @property
    def ufunc(self) -> np.ufunc | None:
        """NumPy's function if it is a ufunc."""
        function = getattr(np, self.name)
        return function if isinstance(function, np.ufunc) else None


@dataclass(frozen=True, slots=True)
class Part:
    """A kernel that returns one of the results of a function of the array namespace."""

    function: str
    number: int

    @property
    def __name__(self) -> str:
        return f"{self.function}_{self.number}"

    def __call__(self, xp: Any, *values: Any) -> Any:
        return getattr(xp, self.function)(*values)[self.number]


@dataclass(frozen=True, slots=True)
class Masked:
    """A kernel for the places where a mask holds; elsewhere it takes elements of a base, in a dtype
    of its own.

    Its operands are those of the kernel, then mask and base, then the dtype.
    """

    kernel: Callable[..., Any]

    def __call__(self, xp: Any, *values: Any) -> Any:
        *operands, mask, base, dtype = values
        if xp is np and isinstance(self.kernel, Named):
            shape = np.broadcast_shapes(*[np.shape(value) for value in (*operands, mask, base)])
            out = np.array(np.broadcast_to(base, shape), dtype)
            getattr(np, self.kernel.name)(*operands, out=out, where=mask, casting="unsafe")
            return out
        with np.errstate(all="ignore"):  # elements that the mask leaves out must not warn
            result = standard.cast(xp, self.kernel(xp, *operands), dtype)
        return xp.where(mask, result, xp.asarray(base, dtype=dtype))


_PARAMETERS = {
    "out": None,
    "where": True,
    "casting": "same_kind",
    "order": "K",
    "dtype": None,
    "subok": True,
    "signature": None,
}


Result = TypeVar("Result")


class Ufunc(Generic[Result]):
    """A universal function: elementwise with broadcasting, lazy and chunked.

    Parameters
    ----------
    name : str
        Name of NumPy's ufunc.
    ops : sequence of Op
        Operations, one for each result.
    """

    nin: int
    nout: int

    def __init__(self, name: str, ops: Sequence[Op]) -> None:
        own: np.ufunc = getattr(np, name)
        self.__name__ = self.__qualname__ = own.__name__
        self.__module__ = "agentic_ray.array"
        self.__doc__ = (
            f"Elementwise ``{name}`` with broadcasting: see `numpy.{name}`.\n\n"
            "``out=``, ``where=``, ``casting=``, ``dtype=`` and ``signature=`` are NumPy's; "
            "without ``out``\nelements that ``where`` leaves out are zero."
        )
        self.numpy = own
        self.nin, self.nout = own.nin, own.nout
        self.nargs, self.ntypes, self.types = own.nargs, own.ntypes, own.types
        self.identity, self.signature = own.identity, own.signature
        self._ops = tuple(ops)
        self.plain: Callable[..., Result] = plain_function(self._ops, self.nin)

    @property
    def __signature__(self) -> inspect.Signature:
        names = ["x"] if self.nin == 1 else [f"x{i + 1}" for i in range(self.nin)]
        kind = inspect.Parameter
        first = [kind(name, kind.POSITIONAL_ONLY) for name in names]
        out = None if self.nout == 1 else (None,) * self.nout
        rest = [
            kind(name, kind.POSITIONAL_OR_KEYWORD if name == "out" else kind.KEYWORD_ONLY,
                 default=default)
            for name, default in {**_PARAMETERS, "out": out}.items()
        ]  # fmt: skip
        return inspect.Signature([*first, *rest])

    def __repr__(self) -> str:
        return f"<ufunc {self.__name__!r} of agentic_ray.array>"

    def __reduce__(self) -> str:
        return self.__name__

    def __call__(self, *args: Any, **options: Any) -> Result:
        if options or len(args) != self.nin:
            found: Result = self._with_options(args, options)
            return found
        return self.plain(*args)

    def _with_options(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        name = self.__name__
        inputs, outs = args[: self.nin], args[self.nin :]
        if len(inputs) < self.nin or len(outs) > self.nout:
            raise TypeError(
                f"{name}() takes from {self.nin} to {self.nin + self.nout} positional arguments "
                f"but {len(args)} were given"
            )
        if "sig" in options:
            options["signature"] = options.pop("sig")
        unknown = set(options) - _PARAMETERS.keys()
        if unknown:
            raise TypeError(f"{name}() got an unexpected keyword argument {min(unknown)!r}")
        if outs and "out" in options:
            raise TypeError("cannot specify 'out' as both a positional and keyword argument")
        given = outs or options.get("out")
        targets = self._targets(given)
        nodes = [operand(value) for value in inputs]
        if {"dtype", "signature", "casting"} & options.keys():
            nodes, dtypes = self._resolved(nodes, options)
        else:
            dtypes = None
        mask = options.get("where", True)
        casting = options.get("casting", "same_kind")
        results = []
        for number, (op, target) in enumerate(zip(self._ops, targets, strict=True)):
            if mask is True:
                node = elementwise(op, nodes)
                result = Array(node if dtypes is None else cast(node, dtypes[number]))
                if target is not None:
                    self._check_output(nodes, number, result.dtype, target.dtype, casting)
            else:
                result = self._where(op, number, nodes, mask, target, casting)
            check_delivery(result, target, casting, broadcasts=True)
            results.append(result)
        if self.nout > 1 and any(target is not None for target in targets):
            # NumPy broadcasts all results to one shape, that of the largest output array given.
            shape = np.broadcast_shapes(*[x.shape for x in (*results, *targets) if x is not None])
            results = [Array(broadcast_to(result._node, shape)) for result in results]
        # Nothing is assigned before everything is checked; of two results that are assigned to
        # one array the first is kept, as in NumPy.
        for number in reversed(range(self.nout)):
            results[number] = delivered(results[number], targets[number], casting, broadcasts=True)
        return results[0] if self.nout == 1 else tuple(results)

    def _targets(self, given: Any) -> list[Any]:
        """Return the arrays that results are assigned to, None for results without one."""
        if given is None:
            return [None] * self.nout
        if not isinstance(given, tuple):
            if self.nout > 1:
                raise TypeError("'out' must be a tuple of arrays")
            given = (given,)
        if len(given) > self.nout:
            raise ValueError("The 'out' tuple must have exactly one entry per ufunc output")
        given = (*given, *[None] * (self.nout - len(given)))
        return [single_out(target) for target in given]

    def _resolved(
        self, nodes: Sequence[Node], options: dict[str, Any]
    ) -> tuple[list[Node], list[DType]]:
        """Return the operands in the dtypes of the loop that NumPy would choose, and the
        results'."""
        signature = options.get("signature")
        if isinstance(signature, str):
            signature = tuple(np.dtype(c) for c in signature.replace("->", ""))
        elif signature is not None and not isinstance(signature, tuple):
            signature = (None,) * self.nin + (np.dtype(signature),) * self.nout
        if options.get("dtype") is not None:
            if signature is not None:
                raise TypeError("cannot specify both 'signature' and 'dtype'")
            signature = (None,) * self.nin + (np.dtype(options["dtype"]),) * self.nout
        kinds = [_kind(node) for node in nodes]
        more: dict[str, Any] = {} if signature is None else {"signature": signature}
        found = self.numpy.resolve_dtypes(
            (*kinds, *[None] * self.nout), casting=options.get("casting", "same_kind"), **more
        )
        if any(dtype.kind in "OSU" for dtype in found):
            raise InvalidTypeError(f"{self.__name__}: no arrays of objects or texts")
        made = [
            leaf(np.asarray(node.params[2]).astype(dtype))
            if node.op is LITERAL
            else cast(node, dtype)
            for node, dtype in zip(nodes, found, strict=False)
        ]
        return made, list(found[self.nin :])

    def _where(
        self, op: Op, number: int, nodes: Sequence[Node], where: Any, target: Any, casting: Any
    ) -> Array:
        """Return the result where the mask holds, elsewhere elements of ``target``, or zeros."""
        mask = strict_operand(where)
        if mask.dtype.kind != "b":
            raise TypeError(
                f"Cannot cast array data from {mask.dtype!r} to dtype('bool') according to the "
                "rule 'safe'"
            )
        dtype = elementwise(op, nodes).dtype
        base = operand(0)
        if target is not None:
            self._check_output(nodes, number, dtype, target.dtype, casting)
            dtype, base = target.dtype, strict_operand(target)
        masked = Op(f"masked_{op.name}", "map", Masked(op.kernel), weight=op.weight + 1)
        masked = _MASKED.setdefault(op.name, masked)
        return Array(elementwise(masked, [*nodes, mask, base], (dtype,)))

    def _check_output(
        self, nodes: Sequence[Node], number: int, found: DType, wanted: DType, casting: Any
    ) -> None:
        """Refuse to convert a result of ``nodes`` to the dtype of ``out`` where NumPy does.

        Raises
        ------
        TypeError
            NumPy refuses, with the error of its own type.
        """
        if np.can_cast(found, wanted, casting):
            return
        operands = [
            node.params[2] if node.op is LITERAL else np.empty((0, 0), node.dtype) for node in nodes
        ]
        outs: list[Any] = [None] * self.nout
        outs[number] = np.empty((0, 0), wanted)
        self.numpy(*operands, out=tuple(outs), casting=casting)  # raises NumPy's own error
        raise TypeError(
            f"Cannot cast ufunc {self.__name__!r} output from {found!r} to {wanted!r} with casting "
            f"rule {casting!r}"
        )

    if TYPE_CHECKING:
        # Methods such as reduce and accumulate: `agentic_ray.array.ufunc_methods`.
        def __getattr__(self, name: str) -> Any: ...


_MASKED: dict[str, Op] = {}


def _kind(node: Node) -> Any:
    """Return how NumPy is told an operand's type: as a dtype, or as the type of a Python number."""
    if node.op is not LITERAL:
        return node.dtype
    kind = type(node.params[2])
    return kind if kind in (int, float, complex) else np.dtype(kind)


def plain_function(ops: tuple[Op, ...], nin: int) -> Callable[..., Any]:
    """Make the function without options: as little as possible between a call and its node."""
    if len(ops) == 1:
        (op,) = ops
        if nin == 1:
            return lambda x: Array(elementwise(op, [operand(x)]))
        return lambda x1, x2: Array(elementwise(op, [operand(x1), operand(x2)]))

    def several(*args: Any) -> tuple[Array, ...]:
        nodes = [operand(x) for x in args]
        return tuple([Array(elementwise(op, nodes)) for op in ops])

    return several
