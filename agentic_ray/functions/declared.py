"""The ``@function`` decorator: declares the resources that a Python function needs."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, overload

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.graph import Captured, Codelet, Resources, capture, content_key
from agentic_ray.graph.sizes import parse_bytes
from agentic_ray.runtime.functions import FunctionCall

BatchSize = int | Literal["auto"] | None


class Function:
    """A function with the resources of a call; made by `function`. Call it like the function.

    Called directly it runs here, with a value of its setup made on the first call. `map`,
    `map_reduce` and `ml.predict` run it where its resources are.

    Attributes
    ----------
    resources : Resources
        Resources that each call takes.
    codelet : Codelet
        Its operation, as the scheduler sees it, with everything it sees as it is now.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        gpus: float = 0.0,
        gpu_memory: int | str | None = None,
        cpus: float = 0.0,
        memory: int | str | None = None,
        setup: Callable[..., Any] | None = None,
        batch_size: BatchSize = None,
        max_concurrency: int | None = None,
        name: str | None = None,
        version: str = "",
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
        has_effects: bool = False,
    ) -> None:
        if not callable(function):
            raise InvalidTypeError(f"expected a function, not {type(function).__name__}")
        if setup is not None and not callable(setup):
            raise InvalidTypeError(f"setup must be a function, not {type(setup).__name__}")
        functools.update_wrapper(self, function)
        self.resources = Resources(
            cpus=_number("cpus", cpus),
            memory_bytes=_bytes("memory", memory),
            gpus=_share(gpus),
            gpu_memory_bytes=_bytes("gpu_memory", gpu_memory),
        )
        self.batch_size = _batch_size(batch_size)
        self.max_concurrency = _count("max_concurrency", max_concurrency)
        self._function = function
        self._setup = setup
        self._cpu: Callable[..., Any] | None = None
        self._name = name or f"{function.__module__}.{function.__qualname__}"
        self._version = version
        self._retry_on = (retry_on,) if isinstance(retry_on, type) else tuple(retry_on)
        self._has_effects = has_effects
        self._made: tuple[tuple[str, ...], Codelet] | None = None
        self._here: list[Any] = []

    @property
    def wants_gpu(self) -> bool:
        """Whether it runs on a GPU where there is one."""
        return bool(self.resources.gpus or self.resources.gpu_memory_bytes)

    @property
    def batched(self) -> bool:
        """Whether it takes a list of items, and returns as many results."""
        return self.batch_size is not None

    def cpu(self, function: Callable[..., Any]) -> Function:
        """Decorator: use ``function`` where there is no GPU, or none with room. It gets the same
        arguments."""
        if not callable(function):
            raise InvalidTypeError(f"expected a function, not {type(function).__name__}")
        self._cpu = function
        return self

    @property
    def codelet(self) -> Codelet:
        function = capture(self._function)
        setup = None if self._setup is None else capture(self._setup)
        on_cpu = None if self._cpu is None else capture(self._cpu)
        named = tuple("" if one is None else _digest(one) for one in (function, setup, on_cpu))
        if self._made is not None and self._made[0] == named:
            return self._made[1]
        if not self.wants_gpu:
            cpu: FunctionCall | None = self._call(on_cpu or function, setup, named[1], "cpu")
            gpu = None
        else:
            gpu = self._call(function, setup, named[1], "cuda")
            both = on_cpu or (function if _takes_device(self._function) else None)
            cpu = None if both is None else self._call(both, setup, named[1], "cpu")
        made = Codelet(
            self._name,
            cpu,
            gpu,
            version=self._version,
            opaque=True,
            own_process=gpu is not None,
            has_effects=self._has_effects,
            speculative=gpu is None,
            pieces="" if isinstance(self.batch_size, int) else "list",
            retry_on=self._retry_on,
        )
        self._made = named, made
        return made

    def _call(
        self, function: Callable[..., Any], setup: Callable[..., Any] | None, name: str, device: str
    ) -> FunctionCall:
        own = self._cpu if self._cpu is not None and device == "cpu" else self._function
        return FunctionCall(
            function,
            setup,
            name,
            self.batched,
            device,
            setup is not None and _takes_device(self._setup),
            _takes_device(own),
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._setup is not None:
            if not self._here:
                options = {"device": "cpu"} if _takes_device(self._setup) else {}
                self._here.append(self._setup(**options))
            args = (self._here[0], *args)
        function = self._cpu or self._function
        if _takes_device(function):
            kwargs.setdefault("device", "cpu")
        return function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<function {self._name} ({self.resources})>"


@overload
def function(function: Callable[..., Any], /) -> Function: ...
@overload
def function(**options: Any) -> Callable[[Callable[..., Any]], Function]: ...
def function(
    function: Callable[..., Any] | None = None, /, **options: Any
) -> Function | Callable[[Callable[..., Any]], Function]:
    """Say what a function needs of a machine; it then runs where that is really free.

    A function with ``gpus`` or ``gpu_memory`` runs on GPUs, in processes of its own that see one
    card each (``CUDA_VISIBLE_DEVICES`` names it by UUID, MIG instances too). Several functions
    share a card by memory: the declared memory counts at first, then the most that NVML saw a
    process of the function hold. Other functions run in worker processes on CPUs.

    Parameters
    ----------
    function : callable
        ``f(item)`` or, with ``setup``, ``f(value, item)``; with ``batch_size`` it takes a list of
        items and returns one result for each, in a list or an array. If it has a parameter
        ``device`` it gets ``"cuda"`` or ``"cpu"``, and runs on CPUs where no card has room.

    Other Parameters
    ----------------
    gpus : float
        Fraction of a card that a call takes, up to 1; 0: it shares cards by memory alone.
    gpu_memory : int or str
        Memory of a card that a process of it holds at most, in bytes or as ``"6 GB"``.
    cpus : float
        CPUs that a call takes beside it.
    memory : int or str
        Host memory that a call takes.
    setup : callable
        Called once in each process, without arguments (or with ``device``, if it has such a
        parameter); its value is the first argument of every call there.
    batch_size : int or "auto", optional
        Most items of a batch. ``"auto"`` climbs to the size of the best throughput. None: the
        function takes one item.
    max_concurrency : int, optional
        Most calls under way at once in one `map`; default: as many as the cluster holds.
    name, version, retry_on, has_effects
        As in `Codelet`; ``retry_on`` may also be one exception type.

    Returns
    -------
    Function

    Raises
    ------
    InvalidArgumentError, InvalidTypeError
        An argument cannot be used.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> def load_model():
    ...     return {"scale": 10}
    >>> @ar.function(setup=load_model, batch_size=2)
    ... def scaled(model, numbers):
    ...     return [model["scale"] * number for number in numbers]
    >>> list(ar.map(scaled, [1, 2, 3]))
    [10, 20, 30]
    """
    if function is None:
        return lambda decorated: Function(decorated, **options)
    return Function(function, **options)


def _digest(function: Callable[..., Any]) -> str:
    """Name a captured function, or a function of a library, by its content."""
    if isinstance(function, Captured):
        return function.digest
    return content_key("function", function)


def _takes_device(function: Callable[..., Any] | None) -> bool:
    if function is None:
        return False
    try:
        return "device" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a function written in C
        return False


def _number(name: str, value: float) -> float:
    fine = isinstance(value, int | float) and not isinstance(value, bool)
    if not (fine and 0 <= value < math.inf):
        raise InvalidArgumentError(f"{name} must be a number >= 0, not {value!r}")
    return float(value)


def _share(gpus: float) -> float:
    share = _number("gpus", gpus)
    if share > 1:
        raise InvalidArgumentError(
            f"a function's call runs on one card, so gpus must be at most 1, not {gpus!r}; for "
            "several cards see agentic_ray.reserve"
        )
    return share


def _bytes(name: str, size: int | str | None) -> int:
    if size is None:
        return 0
    if isinstance(size, str):
        return parse_bytes(size)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InvalidArgumentError(f"{name} must be bytes or a size such as '6 GB', not {size!r}")
    return size


def _count(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidArgumentError(f"{name} must be a number >= 1, not {value!r}")
    return value


def _batch_size(value: BatchSize) -> BatchSize:
    if value == "auto":
        return "auto"
    if isinstance(value, str):
        raise InvalidArgumentError(f"batch_size must be a number, 'auto' or None, not {value!r}")
    return _count("batch_size", value)
