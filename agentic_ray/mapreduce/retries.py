"""`Retried` calls a user's function again when it raises an error listed in ``retry_on``.

The function is called again in place, for the one element that failed: elements that are done, in
its chunk and elsewhere, are not run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import cloudpickle
import numpy as np

from agentic_ray.errors import InvalidTypeError
from agentic_ray.graph import accepts_xp, loaded
from agentic_ray.runtime import check_cancelled, note
from agentic_ray.schedule.records import RetryRules
from agentic_ray.tracebacks import text_of

_LOOK_SECONDS: Final = 0.1
_IMMUTABLE: Final = frozenset({int, float, complex, bool, str, bytes, type(None)})


@dataclass(frozen=True)
class Retries:
    """Errors after which a function is called again, and how often.

    Parameters
    ----------
    errors : tuple of exception types
    times : int
        Number of calls after the first, for each element.
    """

    errors: tuple[type[BaseException], ...] = ()
    times: int = 0

    def __post_init__(self) -> None:
        for error in self.errors:
            if not (isinstance(error, type) and issubclass(error, BaseException)):
                raise InvalidTypeError(f"retry_on must hold exception types, not {error!r}")

    def also(self, errors: tuple[type[BaseException], ...]) -> Retries:
        """Return a copy with these errors too."""
        return Retries((*self.errors, *errors), self.times)

    def around(self, function: Any) -> Any:
        """Wrap ``function`` so that it is called again after these errors."""
        return Retried(function, self) if self.errors and self.times else function


NO_RETRIES: Final = Retries()


@dataclass(frozen=True)
class Retried:
    """A function with its retries; over an array module (``xp``) if the function is."""

    function: Callable[..., Any]
    retries: Retries

    def __call__(self, *arguments: Any, xp: Any = None) -> Any:
        function = loaded(self.function)
        # (None: the function has its array module already.)
        named = {"xp": xp} if xp is not None and accepts_xp(function) else {}
        fresh = _kept(arguments)
        failures = 0
        while True:
            try:
                return function(*arguments, **named)
            except self.retries.errors as error:
                failures += 1
                if failures > self.retries.times:
                    raise
                note("failed: user", f"{type(error).__name__}: {text_of(error)}")
            # Not in the handler, where the error would keep alive the objects that the function had
            # at hand.
            _pause(RetryRules().delay_seconds(repr(type(function)), failures))
            arguments = fresh()


def _kept(arguments: tuple[Any, ...]) -> Callable[[], tuple[Any, ...]]:
    """Return a function that gives the arguments as they are now, even if they are changed
    later."""
    if all(map(_cannot_change, arguments)):
        return lambda: arguments
    pickled = cloudpickle.dumps(arguments)
    return lambda: tuple(cloudpickle.loads(pickled))


def _cannot_change(value: Any) -> bool:
    if type(value) is np.ndarray:
        return not value.flags.writeable and not value.dtype.hasobject
    return type(value) in _IMMUTABLE or isinstance(value, np.generic)


def _pause(seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        check_cancelled()
        time.sleep(min(left, _LOOK_SECONDS))
