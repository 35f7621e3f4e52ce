"""The ``@codelet`` decorator: a user's kernel over one block, for NumPy and CuPy alike."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, overload

from agentic_ray.graph.reduce import accepts_xp
from agentic_ray.graph.task import Codelet, CostHint


class Kernel:
    """A function of blocks with an implementation per device kind; call it like the function.

    Attributes
    ----------
    codelet : Codelet
        The function's operation, as the scheduler sees it.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        cost: CostHint | None = None,
        version: str = "",
        has_effects: bool = False,
        speculative: bool = True,
        chunk_axis: int | None = None,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
    ) -> None:
        functools.update_wrapper(self, function)
        self._cpu = function
        self._name = name or f"{function.__module__}.{function.__qualname__}"
        self._gpu = function if accepts_xp(function) else None
        self._cost = cost
        self._version = version
        self._has_effects = has_effects
        self._speculative = speculative
        self._chunk_axis = chunk_axis
        self._retry_on = (retry_on,) if isinstance(retry_on, type) else tuple(retry_on)

    @property
    def codelet(self) -> Codelet:
        return Codelet(
            self._name,
            self._cpu,
            self._gpu,
            cost=self._cost,
            version=self._version,
            has_effects=self._has_effects,
            speculative=self._speculative,
            chunk_axis=self._chunk_axis,
            retry_on=self._retry_on,
        )

    def gpu(self, function: Callable[..., Any]) -> Kernel:
        """Decorator: use ``function`` on a GPU instead of the one written over ``xp``."""
        self._gpu = function
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if accepts_xp(self._cpu):
            import numpy

            kwargs.setdefault("xp", numpy)
        return self._cpu(*args, **kwargs)

    def __repr__(self) -> str:
        kinds = "cpu" if self._gpu is None else "cpu, gpu"
        return f"<codelet {self._name} ({kinds})>"


@overload
def codelet(function: Callable[..., Any], /) -> Kernel: ...
@overload
def codelet(**options: Any) -> Callable[[Callable[..., Any]], Kernel]: ...
def codelet(
    function: Callable[..., Any] | None = None, /, **options: Any
) -> Kernel | Callable[[Callable[..., Any]], Kernel]:
    """Make a codelet of ``f(block, *, xp)``, where ``xp`` is numpy or cupy.

    A function with a parameter ``xp`` runs on CPUs and GPUs; without it, on CPUs only, until
    ``f.gpu`` registers a GPU version. It must be a pure function that releases the GIL in its
    heavy parts (as array libraries do): it runs in a thread beside others.

    Parameters
    ----------
    function : callable
        ``f(block, ...)``; ``block`` is an array, the result any picklable value.

    Other Parameters
    ----------------
    name, cost, version, has_effects, speculative, chunk_axis, retry_on
        As in `Codelet`; ``retry_on`` may also be one exception type.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> @ar.codelet
    ... def square_sum(block, *, xp):
    ...     return float(xp.sum(block * block))
    """
    if function is None:
        return lambda decorated: Kernel(decorated, **options)
    return Kernel(function, **options)
