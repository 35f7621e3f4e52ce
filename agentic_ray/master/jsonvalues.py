"""Strict JSON in and out: what parameters and results may be, and how numpy values become it.

Pure. Strict means RFC 8259: no NaN or Infinity literals, no duplicate names, no lone encodings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Mapping
from typing import Any, Final, Literal, NoReturn

import numpy as np
from pydantic import BaseModel

from agentic_ray.errors import InvalidArgumentError, SerializationError

MAX_DEPTH: Final = 100
"""Levels of nesting that parameters and results may have."""

_PLAIN: Final = frozenset({str, bool, type(None)})
_SCALARS: Final = frozenset({str, bool, type(None), int, float})
_SHOWN_CHARACTERS: Final = 60
_PIECE: Final = 10_000
_FEW: Final = 100
_SPLIT_LEVELS: Final = 4
_NON_FINITE: Final = {math.inf: "Infinity", -math.inf: "-Infinity"}


NonFinite = Literal["text", "keep", "refuse"]


class _NotJson(Exception):
    """Internal: what is wrong, with the path grown from the inside out while unwinding."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str] = []


class JsonText:
    """JSON kept as its text, and made of it when it is needed: many small values take twenty times
    the memory of their text. Equal to what it is made of.

    Parameters
    ----------
    text : str
        JSON in ASCII.
    digest : str, optional
        `digest_of` the value, where that is known.
    """

    __slots__ = ("_digest", "_text")

    def __init__(self, text: str, digest: str | None = None) -> None:
        self._text = text.encode("ascii")
        self._digest = digest

    @property
    def digest(self) -> str:
        """Equal for equal values, in whatever order their names stand."""
        if self._digest is None:
            self._digest = digest_of(canonical_text(self.load()))
        return self._digest

    @property
    def text(self) -> str:
        return self._text.decode("ascii")

    def load(self) -> Any:
        """The value."""
        return json.loads(self._text)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, JsonText):
            return self._text == other._text
        return bool(self.load() == other)

    __hash__ = None  # type: ignore[assignment]  # as of the lists and dicts it stands for

    def __repr__(self) -> str:
        return f"<JSON of {len(self._text):,} bytes>"


def json_text(value: Any) -> str:
    """The JSON text of plain JSON types, or of a `JsonText`."""
    return value.text if isinstance(value, JsonText) else dumps(value)


def json_value(value: Any) -> Any:
    """Plain JSON types, also of a `JsonText`."""
    return value.load() if isinstance(value, JsonText) else value


def to_json(value: Any, *, name: str = "result", non_finite: NonFinite = "text") -> Any:
    """``value`` as plain JSON types.

    Numpy scalars and arrays, tuples, dataclasses and pydantic models are converted; integers
    stay exact. JSON has no NaN and no infinities: they become the strings ``"NaN"``,
    ``"Infinity"`` and ``"-Infinity"``, stay the numbers they are, or are refused.

    Parameters
    ----------
    value : object
    name : str
        What the value is called in an error.
    non_finite : {"text", "keep", "refuse"}

    Raises
    ------
    SerializationError
        Something in it has no JSON form; the message names the place.
    """
    try:
        return _convert(value, MAX_DEPTH, non_finite)
    except _NotJson as error:
        place = name + "".join(reversed(error.path))
        raise SerializationError(f"{place} {error.reason}") from None


def dumps(value: Any) -> str:
    """The JSON text, ASCII only, of plain JSON types (see `to_json`)."""
    return _text_of(value, _STRICT)


def dumps_result(value: Any) -> str:
    """As `dumps`, for results as they are kept: with the words NaN, Infinity and -Infinity."""
    return _text_of(value, _AS_KEPT)


def canonical_text(plain: Any) -> str:
    """Return the JSON text that all equal values share."""
    return _text_of(plain, _SORTED)


def digest_of(canonical: str) -> str:
    """The digest of a `canonical_text`."""
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def loads_result(text: bytes | str) -> Any:
    """Read a text that `dumps_result` wrote.

    Raises
    ------
    InvalidArgumentError
        It is something else.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidArgumentError(f"not a result as it was kept: {error}") from None


def loads(text: bytes | str) -> Any:
    """Parse strict JSON.

    Raises
    ------
    InvalidArgumentError
        Not UTF-8, not JSON, NaN or Infinity, a number out of range, a name given twice, or
        nested too deep.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            object_pairs_hook=_unique_names,
        )
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"the text is not UTF-8: {error}") from None
    except json.JSONDecodeError as error:
        raise InvalidArgumentError(f"not valid JSON: {error}") from None
    except RecursionError:
        raise InvalidArgumentError("not usable JSON: nested too deep") from None
    except ValueError as error:  # from the hooks, and integers of too many digits
        raise InvalidArgumentError(f"not usable JSON: {error}") from None


def whole(value: Any) -> Any:
    """``value``, where it is a float such as 5.0 as the integer: JSON has one kind of number."""
    return int(value) if type(value) is float and value.is_integer() else value


def check_depth(plain: Any, name: str) -> bool:
    """Whether in each object of plain JSON types the names stand in order, so that its text is its
    `canonical_text`.

    Raises
    ------
    SerializationError
        It is nested deeper than results and parameters may be.
    """
    in_order = True
    level = [plain]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for value in level:
            if type(value) is dict:
                in_order = in_order and (len(value) < 2 or list(value) == sorted(value))
                parts: Any = value.values()
            elif type(value) is list:
                parts = value
            else:
                continue
            if len(parts) < _FEW or not _SCALARS.issuperset(map(type, parts)):
                inner += parts
        if not inner:
            return in_order
        level = inner
    raise SerializationError(f"{name} is nested deeper than {MAX_DEPTH} levels")


def _refuse_constant(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is not JSON")


def _finite_float(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise ValueError(f"the number {literal[:40]} is out of range")
    return value


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {cut_name(name)} is given twice")
            seen.add(name)
    return result


def cut_name(name: str) -> str:
    """A name that came from outside, for a message: quoted, its beginning only."""
    if len(name) <= _SHOWN_CHARACTERS:
        return repr(name)
    return f"{name[:_SHOWN_CHARACTERS]!r}... ({len(name):,} characters)"


_STRICT: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_AS_KEPT: Final = json.JSONEncoder(allow_nan=True, separators=(",", ":"))
_SORTED: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def _text_of(value: Any, encoder: json.JSONEncoder) -> str:
    """The text, made in pieces: the C code that makes each lets no other thread run meanwhile."""
    parts: list[str] = []
    _write_parts(value, encoder, _SPLIT_LEVELS, parts)
    return parts[0] if len(parts) == 1 else "".join(parts)


def _write_parts(value: Any, encoder: json.JSONEncoder, levels: int, parts: list[str]) -> None:
    kind = type(value)
    if kind is list and len(value) > _PIECE:
        opening = "["
        for start in range(0, len(value), _PIECE):
            parts += (opening, encoder.encode(value[start : start + _PIECE])[1:-1])
            opening = ","
        parts.append("]")
    elif kind is list and value and levels and len(value) <= _FEW:
        opening = "["
        for each in value:
            parts.append(opening)
            _write_parts(each, encoder, levels - 1, parts)
            opening = ","
        parts.append("]")
    elif kind is dict and len(value) > _PIECE:
        names = sorted(value) if encoder is _SORTED else list(value)
        opening = "{"
        for start in range(0, len(names), _PIECE):
            piece = {name: value[name] for name in names[start : start + _PIECE]}
            parts += (opening, encoder.encode(piece)[1:-1])
            opening = ","
        parts.append("}")
    elif kind is dict and value and levels and len(value) <= _FEW:
        opening = "{"
        for name in sorted(value) if encoder is _SORTED else value:
            parts.append(f"{opening}{encoder.encode(name)}:")
            _write_parts(value[name], encoder, levels - 1, parts)
            opening = ","
        parts.append("}")
    else:
        parts.append(encoder.encode(value))


def _convert(value: Any, depth: int, non_finite: NonFinite) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        return _integer(value)
    if kind is float:
        return value if math.isfinite(value) else _special(value, non_finite)
    if depth == 0:
        raise _NotJson(f"is nested deeper than {MAX_DEPTH} levels, or contains itself")
    if isinstance(value, Mapping):
        return _object(value, depth, non_finite)
    if isinstance(value, list | tuple):
        return _array(value, depth, non_finite)
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in "biufUO":
            raise _NotJson(f"is a numpy {value.dtype} and has no JSON form")
        if isinstance(value, np.longdouble):
            value = np.float64(value)  # its item() is a longdouble again
        return _convert(value.tolist(), depth, non_finite)
    if isinstance(value, BaseModel):
        return _convert(value.model_dump(), depth, non_finite)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _object(named, depth, non_finite)
    for base in (str, bool, int, float):  # their subclasses: IntEnum, StrEnum and the like
        if isinstance(value, base):
            return _convert(base(value), depth, non_finite)
    raise _NotJson(f"is of type {kind.__name__} and has no JSON form")


def _integer(value: int) -> int:
    # Python itself refuses to write or read longer ones (sys.set_int_max_str_digits).
    digits = sys.get_int_max_str_digits()
    if digits and value.bit_length() * math.log10(2) >= digits:
        raise _NotJson(f"is an integer of more than {digits} digits, too long for JSON text")
    return value


def _special(value: float, non_finite: NonFinite) -> str | float:
    if non_finite == "keep":
        return value
    text = _NON_FINITE.get(value, "NaN")
    if non_finite == "refuse":
        raise _NotJson(f"is {text}, which is not JSON")
    return text


def _array(values: list[Any] | tuple[Any, ...], depth: int, non_finite: NonFinite) -> list[Any]:
    kinds = set(map(type, values))
    if kinds <= _PLAIN or (kinds == {float} and all(map(math.isfinite, values))):
        return list(values)  # the long plain list, without a call for each element
    result = []
    for i, value in enumerate(values):
        try:
            result.append(_convert(value, depth - 1, non_finite))
        except _NotJson as error:
            error.path.append(f"[{i}]")
            raise
    return result


def _object(values: Mapping[Any, Any], depth: int, non_finite: NonFinite) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in values.items():
        if not isinstance(key, str | int | np.integer) or isinstance(key, bool):
            raise _NotJson(f"has a key of type {type(key).__name__}; JSON names are strings")
        name = str(key)
        if name in result:
            raise _NotJson(f"has two keys that are {cut_name(name)} as JSON names")
        try:
            result[name] = _convert(value, depth - 1, non_finite)
        except _NotJson as error:
            error.path.append(f".{name if len(name) <= _SHOWN_CHARACTERS else cut_name(name)}")
            raise
    return result
