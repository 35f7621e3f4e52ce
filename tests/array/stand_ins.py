"""Stand-ins for devices, under which the kernels of arrays are run one by one on the CPU.

`CUPY_LIKE` has NumPy's functions over arrays that refuse to meet NumPy's, as CuPy's do, and lacks
what CuPy 14.2 lacks; `STRICT` is array_api_strict; `torch_stand_in` is PyTorch behind
array_api_compat. `on` makes expressions be computed under one of them.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import array_api_strict
import numpy as np
import pytest

from agentic_ray.array.core import evaluate, prepared
from agentic_ray.array.core import node as nodes
from agentic_ray.graph import Task, replace_refs
from agentic_ray.runtime.devices import map_leaves


@dataclass(frozen=True)
class StandIn:
    """A namespace in the place of a GPU's, the type of its arrays, and the ways in and out."""

    xp: Any
    array: type
    upload: Callable[[np.ndarray], Any]
    download: Callable[[Any], np.ndarray]

    def to_device(self, value: Any) -> Any:
        """``value`` with NumPy arrays moved, as devices move them."""
        return map_leaves(value, lambda leaf: isinstance(leaf, np.ndarray), self.upload)

    def to_host(self, value: Any) -> Any:
        """``value`` with arrays moved back."""
        return map_leaves(value, lambda leaf: isinstance(leaf, self.array), self.download)

    def check(self, value: Any) -> None:
        """Refuse what a kernel made if there is an array of NumPy's in it, or a scalar."""

        def is_host(leaf: Any) -> bool:
            return isinstance(leaf, np.ndarray | np.generic)

        def refuse(leaf: Any) -> None:
            raise TypeError(f"a kernel's result is NumPy's: {type(leaf).__name__}")

        map_leaves(value, is_host, refuse)


@dataclass
class Ran:
    """The codelets that ran on the device, and those that only have a version for CPUs."""

    device: set[str] = field(default_factory=set)
    host: set[str] = field(default_factory=set)


@contextlib.contextmanager
def on(stand_in: StandIn | None) -> Iterator[Ran]:
    """Compute every expression by its tasks' kernels for GPUs, over the stand-in's namespace.

    None: over NumPy, by the kernels for CPUs. Either way nothing is too small to be tasks.
    """
    ran = Ran()

    def run(tasks: Sequence[Task], outputs: Sequence[str], **_: Any) -> dict[str, Any]:
        assert stand_in is not None
        made: dict[str, Any] = {}
        for task in tasks:
            args = replace_refs(task.args, made.__getitem__)
            if "gpu" in task.kinds():
                ran.device.add(task.codelet.name)
                function: Any = task.codelet.gpu
                made[task.key] = function(*stand_in.to_device(args), **task.kwargs, xp=stand_in.xp)
                stand_in.check(made[task.key])
            else:
                ran.host.add(task.codelet.name)
                function = task.codelet.cpu
                made[task.key] = function(*stand_in.to_host(args), **task.kwargs, xp=np)
        return {key: stand_in.to_host(made[key]) for key in outputs}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "SMALL_ELEMENTS", -1)
        patch.setattr(evaluate, "runs_locally", lambda roots: True)
        prepared.forget()
        patch.setattr(prepared, "MOST_TASKS_EACH", -1)  # each plan is run as `run_here` does
        if stand_in is not None:
            patch.setattr(evaluate, "run_here", run)
        yield ran


# --- NumPy in a memory of its own --------------------------------------------------------


class CupyArray:
    """An array that meets only its like, Python's scalars and NumPy's; never a NumPy array.

    NumPy's functions refuse it, and nothing but `get` converts it. What CuPy does not say as
    NumPy does: reductions and elements are arrays of no axes, not scalars.
    """

    __slots__ = ("_own",)
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, own: np.ndarray) -> None:
        object.__setattr__(self, "_own", own)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_function__(self, function: Any, *_: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was given a device array")

    def get(self) -> np.ndarray:
        """A copy for the host."""
        return np.array(self._own)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self._own, name)
        return _call(found) if callable(found) else _into(found)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._own, name, _out(value))

    def __getitem__(self, key: Any) -> Any:
        return _into(self._own[_out(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._own[_out(key)] = _out(value)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __len__(self) -> int:
        return len(self._own)

    def __bool__(self) -> bool:
        return bool(self._own)

    def __int__(self) -> int:
        return int(self._own)

    def __index__(self) -> int:
        return self._own.__index__()

    def __float__(self) -> float:
        return float(self._own)

    def __complex__(self) -> complex:
        return complex(self._own)


def _operator(name: str) -> Any:
    def operator(self: CupyArray, *others: Any) -> Any:
        return _into(getattr(self._own, name)(*map(_out, others)))

    return operator


_BINARY = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor"]
_BINARY += ["lshift", "rshift", "matmul"]
for _name in [*_BINARY, "eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "abs", "invert"]:
    setattr(CupyArray, f"__{_name}__", _operator(f"__{_name}__"))
for _name in _BINARY:
    setattr(CupyArray, f"__r{_name}__", _operator(f"__r{_name}__"))


def _in_place(name: str) -> Any:
    def operator(self: CupyArray, other: Any) -> CupyArray:
        getattr(self._own, name)(_out(other))
        return self

    return operator


for _name in _BINARY[:-1]:
    setattr(CupyArray, f"__i{_name}__", _in_place(f"__i{_name}__"))


def _out(value: Any) -> Any:
    """An argument for NumPy."""
    if isinstance(value, CupyArray):
        return value._own
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if type(value) in (list, tuple):
        return type(value)(_out(element) for element in value)
    return value


def _into(value: Any) -> Any:
    """A result of NumPy's."""
    if isinstance(value, np.ndarray | np.generic):
        return CupyArray(np.asarray(value))
    if isinstance(value, tuple):
        made = [_into(element) for element in value]
        return type(value)(*made) if hasattr(value, "_fields") else tuple(made)
    return [_into(element) for element in value] if type(value) is list else value


def _call(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs = {name: _out(value) for name, value in kwargs.items()}
        return _into(function(*map(_out, args), **kwargs))

    return call


_MISSING = {
    *("block", "einsum_path", "frompyfunc", "geomspace", "histogram_bin_edges", "insert", "isnat"),
    *("matvec", "nanpercentile", "nanquantile", "spacing", "unstack", "vecdot", "vecmat"),
    *("linalg.diagonal", "linalg.eig", "linalg.eigvals", "linalg.matrix_norm", "linalg.multi_dot"),
    *("linalg.outer", "linalg.svdvals", "linalg.tensordot", "linalg.trace", "linalg.vecdot"),
    "linalg.vector_norm",
}
"""What CuPy 14.2 lacks of NumPy, and `eig` and `eigvals`, which CuPy 13 lacks."""

_LACKS = {
    name: set(parameters.split())
    for name, parameters in {
        "all": "where",
        "any": "where",
        "argsort": "order stable",
        "clip": "min max",
        "count_nonzero": "keepdims",
        "einsum": "optimize out",
        "isin": "kind",
        "max": "initial where",
        "mean": "where",
        "min": "initial where",
        "nanmax": "initial where",
        "nanmin": "initial where",
        "prod": "initial where",
        "quantile": "weights",
        "sort": "order stable",
        "std": "correction mean where",
        "sum": "initial where",
        "take": "mode",
        "unique": "sorted",
        "var": "correction mean where",
        "linalg.cholesky": "upper",
        "linalg.matrix_rank": "hermitian rtol",
        "linalg.pinv": "hermitian rtol",
        "linalg.svd": "hermitian",
    }.items()
}
"""Parameters of NumPy's functions that CuPy 14.2's do not have."""


class CupyLike:
    """NumPy, or a part of it, over `CupyArray`."""

    ndarray = CupyArray

    def __init__(self, source: types.ModuleType = np, prefix: str = "") -> None:
        self._source = source
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:
        full = self._prefix + name
        if full in _MISSING:
            raise AttributeError(f"module 'cupy' has no attribute {full!r}")
        found = getattr(self._source, name)
        if isinstance(found, types.ModuleType):
            return CupyLike(found, f"{full}.")
        if isinstance(found, type) or not callable(found):
            return found
        if isinstance(found, np.ufunc):
            return Ufunc(found)
        lacking, call = _LACKS.get(full, set()), _call(found)

        def checked(*args: Any, **kwargs: Any) -> Any:
            wrong = lacking & set(kwargs)
            if wrong:
                raise TypeError(f"cupy.{full} has no parameters {sorted(wrong)}")
            if name in ("array", "asarray") and isinstance(args[0], np.ndarray):
                return CupyArray(np.array(args[0], **kwargs))  # asked for: that is a copy
            return call(*args, **kwargs)

        return checked


class Ufunc:
    """One of NumPy's ufuncs over `CupyArray`."""

    def __init__(self, ufunc: np.ufunc) -> None:
        self._ufunc = ufunc

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _call(self._ufunc)(*args, **kwargs)


CUPY_LIKE = StandIn(CupyLike(), CupyArray, lambda array: CupyArray(np.array(array)), CupyArray.get)

# --- other libraries ---------------------------------------------------------------------

STRICT = StandIn(
    array_api_strict,
    type(array_api_strict.asarray(0)),
    lambda array: array_api_strict.asarray(np.array(array)),
    lambda array: np.array(array._array),
)


def torch_stand_in() -> StandIn:
    """PyTorch on the CPU; skips the test where it is not installed."""
    torch = pytest.importorskip("torch")
    compat = pytest.importorskip("array_api_compat.torch")
    return StandIn(
        compat,
        torch.Tensor,
        lambda array: torch.from_numpy(np.array(array)),
        lambda tensor: tensor.detach().cpu().resolve_conj().numpy(),
    )
