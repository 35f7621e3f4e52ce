"""Objects of this package as JSON and back, for recordings of a Dispatcher.

A reader makes only objects of the classes it was given, sets only their own fields, and calls no
code of theirs: a recording may come from anybody.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

from agentic_ray.errors import InvalidArgumentError

Json: TypeAlias = Any
"""Values that ``json.loads`` returns."""

_MARK = "@"


class Plain:
    """Turns values into JSON and back.

    Numbers, texts, None, tuples, lists, dicts, sets, deques and the ``classes`` are known, nothing
    else. If two names meant one object, the copy has two.

    Parameters
    ----------
    classes : iterable of type
        Classes with dataclass fields, ``__slots__`` or a plain ``__dict__``, or named tuples.
    """

    def __init__(self, classes: Iterable[type]) -> None:
        self._classes = {cls.__name__: cls for cls in classes}

    def encode(self, value: Any) -> Json:
        """Turn a value into JSON.

        Raises
        ------
        InvalidArgumentError
            The value is of a class that is not known.
        """
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if kind is tuple:
            return [self.encode(one) for one in value]
        if kind is list:
            return {_MARK: "list", "of": [self.encode(one) for one in value]}
        if kind in (dict, OrderedDict):
            pairs = [[self.encode(key), self.encode(one)] for key, one in value.items()]
            return {_MARK: "ordered" if kind is OrderedDict else "dict", "of": pairs}
        if kind in (set, frozenset):
            # Sorted, so that equal sets are written alike.
            return {_MARK: kind.__name__, "of": [self.encode(one) for one in sorted(value)]}
        if kind is deque:
            parts = [self.encode(one) for one in value]
            return {_MARK: "deque", "of": parts, "maxlen": value.maxlen}
        if self._classes.get(kind.__name__) is kind:
            state = {name: self.encode(getattr(value, name)) for name in _names(value)}
            return {_MARK: kind.__name__, **state}
        raise InvalidArgumentError(f"a {kind.__qualname__} cannot be recorded: {value!r:.80}")

    def decode(self, data: Json) -> Any:
        """Turn JSON back into the value.

        Raises
        ------
        InvalidArgumentError
            `encode` does not make such JSON with these classes.
        """
        if isinstance(data, list):
            return tuple([self.decode(one) for one in data])
        if not isinstance(data, dict):
            return data
        try:
            name = data[_MARK]
            if name in self._classes:
                return self._made(self._classes[name], data)
            parts = data["of"]
            if name in ("dict", "ordered"):
                made = {self.decode(key): self.decode(one) for key, one in parts}
                return OrderedDict(made) if name == "ordered" else made
            values = [self.decode(one) for one in parts]
            if name == "list":
                return values
            if name == "deque":
                return deque(values, data["maxlen"])
            if name in ("set", "frozenset"):
                return set(values) if name == "set" else frozenset(values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidArgumentError(f"not of a recording: {data!r:.120} ({error})") from error
        raise InvalidArgumentError(f"a recording of this version has no {name!r:.80}")

    def _made(self, cls: type, data: Mapping[str, Json]) -> Any:
        known = _names_of(cls)
        given = [name for name in data if name != _MARK]
        if known is not None and set(given) != set(known):
            differing = ", ".join(sorted(set(given) ^ set(known)))
            raise InvalidArgumentError(f"{cls.__name__} of another version: {differing}")
        if issubclass(cls, tuple):
            return tuple.__new__(cls, [self.decode(data[name]) for name in known or ()])
        made = cls.__new__(cls)
        for name in given:
            if not name.isidentifier() or name.startswith("__"):
                raise InvalidArgumentError(f"{cls.__name__} has no field {name!r:.80}")
            object.__setattr__(made, name, self.decode(data[name]))
        return made


def _names_of(cls: type) -> tuple[str, ...] | None:
    """Return the field names of every object of a class; None where only an object knows them."""
    if issubclass(cls, tuple):
        return tuple(getattr(cls, "_fields", ()))
    if is_dataclass(cls):
        return tuple([entry.name for entry in fields(cls)])
    slots = cls.__dict__.get("__slots__")
    return None if slots is None else tuple(slots)


def _names(value: Any) -> Iterable[str]:
    names = _names_of(type(value))
    return vars(value) if names is None else names
