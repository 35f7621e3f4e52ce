"""Workloads: named, versioned functions of JSON parameters, their registry and schema check.

Running them is the `Master`'s business; files of them are imported in ``userfiles``.
"""

from __future__ import annotations

import inspect
import json
import threading
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    ConfigDict,
    FailFast,
    PlainValidator,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    with_config,
)
from typing_extensions import TypedDict

from agentic_ray.errors import (
    InvalidArgumentError,
    InvalidParametersError,
    InvalidTypeError,
    SerializationError,
    UnknownWorkloadError,
)
from agentic_ray.master.checks import check_limit
from agentic_ray.master.jsonvalues import canonical_text, check_depth, dumps, to_json
from agentic_ray.shown import cut_line

DEFAULT: Final = "default"
"""The workload that runs when none is named."""

_SHOWN_ERRORS = 5
_TOLD_ERRORS = 1000

Function = Callable[[Any], Any]
_F = TypeVar("_F", bound=Function)


@dataclass(frozen=True, slots=True)
class Workload:
    """A named function. ``check`` turns JSON parameters into the function's argument.

    With ``effects`` it is never run a second time for one job; without ``cache`` equal jobs are
    computed each time. ``schema`` tells what ``check`` does, for the key of a result: a function,
    or the text of a schema. By ``memory_bytes`` the process of a job may grow.
    """

    name: str
    function: Function
    version: str
    check: Callable[[Any], Any]
    builtin: bool = False
    effects: bool = False
    cache: bool = True
    schema: Any = ""
    memory_bytes: int | None = None
    check_text: Callable[[str], Any] | None = None
    check_read: Callable[[Any], Any] | None = None

    @property
    def description(self) -> str:
        """The first paragraph of what its function says of itself."""
        text = inspect.getdoc(self.function) or ""
        return " ".join(text.partition("\n\n")[0].split())[:1000]

    @property
    def json_schema(self) -> Any:
        """The JSON schema of its parameters; None if nothing is known of them."""
        if self.check_text is None or not isinstance(self.schema, str) or not self.schema:
            return None
        return json.loads(self.schema)

    def prepare_text(self, text: str) -> Any:
        """As `prepare`, of the JSON text of the parameters."""
        if self.check_text is not None:
            return self._checked(self.check_text, text)
        return self._checked(self.check, json.loads(text))

    def refuse(self, params: Any) -> None:
        """Raise InvalidParametersError for plain JSON ``params`` that surely do not fit, without
        making text of them. `prepare` has the last word."""
        if self.check_read is not None:
            self._checked(self.check_read, params)

    def prepare(self, params: Any) -> Any:
        """The argument of the function, made of plain JSON ``params`` by the schema.

        Raises
        ------
        InvalidParametersError
            The parameters do not fit; the message names each field at fault.
        """
        return self._checked(self.check, params)

    def _checked(self, check: Callable[[Any], Any], params: Any) -> Any:
        try:
            return check(params)
        except InvalidParametersError:
            raise
        except ValidationError as error:
            raise InvalidParametersError(_describe(self.name, error)) from None
        except (ValueError, TypeError) as error:
            raise InvalidParametersError(f"workload {self.name!r}: params: {error}") from error


class Registry:
    """Workloads by name; safe to use from any thread."""

    def __init__(self, workloads: Mapping[str, Workload] | None = None) -> None:
        self._workloads = dict(workloads or {})
        self._lock = threading.Lock()

    def register(
        self,
        name: str,
        function: Function,
        *,
        version: str = "1",
        schema: Any = None,
        replace: bool = False,
        builtin: bool = False,
        effects: bool = False,
        cache: bool = True,
        memory_bytes: int | None = None,
    ) -> Workload:
        """Add a workload; the arguments are those of `workload`.

        Raises
        ------
        InvalidArgumentError
            The name is empty, or taken by another workload that is not built in.
        InvalidTypeError
            Not a function of one parameter, or the schema is not usable.
        """
        if not isinstance(name, str) or not name or name != name.strip():
            raise InvalidArgumentError(f"a workload needs a name, not {name!r}")
        _check_signature(name, function)
        if memory_bytes is not None:
            check_limit("memory_bytes", memory_bytes)
        check, told, check_text = _checker(name, function, schema)
        check_read = _reader_check(function) if builtin else None
        made = Workload(
            name,
            function,
            version,
            check,
            builtin,
            effects,
            cache,
            told,
            memory_bytes,
            check_text,
            check_read,
        )
        with self._lock:
            known = self._workloads.get(name)
            if known is not None and not (replace or known.builtin):
                raise InvalidArgumentError(
                    f"a workload {name!r} is registered already ({_where(known.function)}); "
                    "choose another name or pass replace=True"
                )
            self._workloads[name] = made
        return made

    def get(self, name: str) -> Workload:
        """The workload of this name.

        Raises
        ------
        UnknownWorkloadError
            There is none; the message lists those there are.
        """
        with self._lock:
            found = self._workloads.get(name)
            known = sorted(self._workloads)
        if found is None:
            raise UnknownWorkloadError(f"no workload {name!r}; there are: {', '.join(known)}")
        return found

    def name_of(self, function: Function) -> str:
        """The name under which ``function`` is registered.

        Raises
        ------
        UnknownWorkloadError
            It is not.
        """
        for known in self.snapshot().values():
            if known.function is function:
                return known.name
        raise UnknownWorkloadError(
            f"{_where(function)} is not a workload; decorate it with @workload('name')"
        )

    def snapshot(self) -> dict[str, Workload]:
        """All workloads by name, as they are now."""
        with self._lock:
            return dict(self._workloads)

    def restore(self, workloads: Mapping[str, Workload]) -> None:
        """Go back to an earlier `snapshot`."""
        with self._lock:
            self._workloads = dict(workloads)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that were read already: their JSON text, and that with sorted names."""

    text: str
    canonical: str

    @classmethod
    def of(cls, params: Any) -> Parameters:
        """Return the parameters that any value with a JSON form stands for.

        Raises
        ------
        InvalidParametersError
            It has none.
        """
        plain, text = normalise(params)
        canonical = canonical_text(plain)
        return cls(text, text if canonical == text else canonical)

    @classmethod
    def of_read(cls, plain: Any) -> Parameters:
        """As `of`, for what `jsonvalues.loads` has read."""
        if check_depth(plain, "params"):
            text = dumps(plain)
            return cls(text, text)
        return cls(dumps(plain), canonical_text(plain))


def normalise(params: Any) -> tuple[Any, str]:
    """Parameters as plain JSON types, and their JSON text.

    Raises
    ------
    InvalidParametersError
        They have no JSON form.
    """
    try:
        plain = to_json(params, name="params", non_finite="refuse")
    except SerializationError as error:
        raise InvalidParametersError(str(error)) from None
    return plain, dumps(plain)


_Check = Callable[[Any], Any]


def _checker(
    name: str, function: Function, schema: Any
) -> tuple[_Check, Any, Callable[[str], Any] | None]:
    """Return a function that checks parameters, a description of them, and a function that checks
    their JSON text."""
    if schema is None:
        schema = _parameter_hint(function)
    elif _is_plain_callable(schema):
        return typing.cast(_Check, schema), schema, None
    if schema is Any:
        return (lambda params: params), "", (lambda text: None)
    try:
        adapter = schema if isinstance(schema, TypeAdapter) else TypeAdapter(schema)
    except Exception as error:  # pydantic raises many types for what it cannot use
        raise InvalidTypeError(
            f"workload {name!r}: {schema!r} is not usable as a schema ({error}); give a pydantic "
            "model, a TypedDict, a dataclass, or a function of the params"
        ) from error
    try:
        told = dumps(adapter.json_schema())  # with defaults, which may change
    except (PydanticUserError, SerializationError):  # some types have no JSON schema
        told = ""

    # JSON mode: text for a date or an array for a tuple is right, text for a number is not.
    def check_text(text: str) -> Any:
        return adapter.validate_json(text, strict=True)

    return (lambda params: check_text(dumps(params))), told, check_text


def _reader_check(function: Function) -> _Check:
    """The check of a built-in workload's parameters as they were read. (Their types are such that
    it refuses nothing that the check of their text lets through.)"""
    adapter = TypeAdapter(_parameter_hint(function))
    return lambda params: adapter.validate_python(params, strict=True)


def _is_plain_callable(schema: Any) -> bool:
    return inspect.isroutine(schema) or (
        callable(schema)
        and not isinstance(schema, type | TypeAdapter)
        and typing.get_origin(schema) is None
        and type(schema).__module__ != "typing"
    )


def _parameter_hint(function: Function) -> Any:
    parameter = next(iter(inspect.signature(function).parameters))
    try:
        return typing.get_type_hints(function, include_extras=True).get(parameter, Any)
    except NameError as error:
        raise InvalidTypeError(
            f"the type of parameter {parameter!r} of {_where(function)} cannot be found: {error}"
        ) from error


def _check_signature(name: str, function: Any) -> None:
    if not callable(function):
        raise InvalidTypeError(f"workload {name!r} is not a function but {function!r}")
    if inspect.iscoroutinefunction(function):
        raise InvalidTypeError(f"workload {name!r} is a coroutine; give a plain function")
    parameters = list(inspect.signature(function).parameters.values())
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    wanted = [p for p in parameters if p.default is p.empty and p.kind in positional]
    needed = [p for p in parameters if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    if not parameters or parameters[0].kind not in positional or len(wanted) > 1 or needed:
        raise InvalidTypeError(
            f"workload {name!r} must be a function of one parameter (the params), not "
            f"{_where(function)}{inspect.signature(function)}"
        )


def _where(function: Any) -> str:
    module = getattr(function, "__module__", None)
    named = getattr(function, "__qualname__", None) or repr(function)
    return f"{module}.{named}" if module else str(named)


def _describe(name: str, error: ValidationError) -> str:
    if error.error_count() > _TOLD_ERRORS:  # to make them readable takes seconds
        return f"workload {name!r}: {error.error_count():,} values in params do not fit its schema"
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [
        f"params{_path(entry['loc'])}: {entry['msg'].removeprefix('Value error, ')}"
        for entry in errors[:_SHOWN_ERRORS]
    ]
    if len(errors) > _SHOWN_ERRORS:
        lines.append(f"and {len(errors) - _SHOWN_ERRORS} more")
    return f"workload {name!r}: " + "; ".join(lines)


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{cut_line(part)}" for part in location
    )


# --- the built-in workload ---------------------------------------------------------------


def _number(value: Any) -> int | float:
    # one check instead of a union, whose errors would name each of its arms
    if type(value) is not int and type(value) is not float:
        raise ValueError("should be a number")
    return value


_Number = Annotated[int | float, PlainValidator(_number), WithJsonSchema({"type": "number"})]


@with_config(ConfigDict(extra="forbid"))
class DefaultParams(TypedDict):
    """Parameters of the default workload: finite numbers; integers are exact at any size."""

    data: Annotated[list[_Number], FailFast()]


def square(x: Any) -> Any:
    """``x`` times ``x``."""
    return x * x


def add(a: Any, b: Any) -> Any:
    """``a`` plus ``b``."""
    return a + b


def sum_of_squares(params: DefaultParams) -> int | float:
    """Sum of the squares of ``params["data"]``; 0 for no data.

    Goes the whole way of any other work: decomposed, placed, executed and tree-reduced on the
    cluster. Sums of floats too large for a float are ``inf``, as in Python.
    """
    # imported when first run: importing this module must not start to load Ray
    from agentic_ray.mapreduce import map_reduce

    total: int | float = map_reduce(square, params["data"], add, initial=0)
    return total


registry: Final = Registry()
"""The workloads of this process; what `workload`, `Worker` and `Master` use unless told."""

registry.register(DEFAULT, sum_of_squares, builtin=True)


# --- what users write --------------------------------------------------------------------


def workload(
    name: str,
    *,
    version: str = "1",
    schema: Any = None,
    replace: bool = False,
    effects: bool = False,
    cache: bool = True,
    memory_bytes: int | None = None,
) -> Callable[[_F], _F]:
    """Make a function of JSON parameters a workload that the master and HTTP can run.

    Parameters
    ----------
    name : str
        By which it is submitted.
    version : str
        Change it when the meaning of the result changes.
    schema : type or callable, optional
        What the parameters must be: a pydantic model, a TypedDict, a dataclass or any type that
        pydantic understands (checked strictly: text is not taken for a number), or a function
        ``check(params) -> argument`` that raises ValueError. Default: the type of the
        function's parameter.
    replace : bool
        Replace a workload of the same name. The built-in ``"default"`` may always be replaced.
    effects : bool
        It does something in the world that must not happen twice, such as a payment. Otherwise
        it is taken to be idempotent: where the master dies while it runs, it is run again.
        With effects the job fails instead, with InterruptedJobError.
    cache : bool
        An equal job (same name, version, code and parameters) may be answered with the earlier
        result. Turn it off where the result depends on more than that: a file's content, the
        time, chance without a seed. Workloads with effects are never answered so.
    memory_bytes : int, optional
        By so much the process of a job may grow; one that grows further is killed and fails with
        JobMemoryError. Only where jobs have processes of their own (``Master(runners=...)``,
        ``agentic-ray serve``), and not counting processes that they start. Default: as the master
        was told.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> @ar.workload("count_words")
    ... def count_words(params: dict[str, str]) -> int:
    ...     return ar.map_reduce(len, params["text"].split(), lambda a, b: a + b, initial=0)
    """

    def decorate(function: _F) -> _F:
        registry.register(
            name,
            function,
            version=version,
            schema=schema,
            replace=replace,
            effects=effects,
            cache=cache,
            memory_bytes=memory_bytes,
        )
        return function

    return decorate


class Worker:
    """The one-function form: what it is given by `on_task` replaces the default workload.

    Examples
    --------
    >>> from agentic_ray import worker
    >>> @worker.on_task
    ... def on_task_received(task_data):
    ...     return max(task_data["data"])
    """

    def __init__(self, workloads: Registry = registry) -> None:
        self._registry = workloads

    def on_task(self, function: _F) -> _F:
        """Decorator: run ``function(task_data)`` for every task submitted without a name.

        ``task_data`` is what was submitted, e.g. ``{"data": [1, 2, 3]}``. The last function
        decorated counts.
        """
        # Not cached: nothing was said of it, so it may depend on more than its parameters.
        self._registry.register(DEFAULT, function, replace=True, cache=False)
        return function


worker: Final = Worker()
"""The worker of this process."""
