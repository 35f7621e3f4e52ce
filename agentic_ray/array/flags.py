"""The flags of an array, to be read."""

from __future__ import annotations

from typing import Any, NoReturn


class Flags:
    """The flags that an array of NumPy's with these elements would have.

    Setting one would change a description and nothing else, so it raises.
    """

    __slots__ = ("_known",)
    _known: Any

    def __init__(self, known: Any) -> None:
        object.__setattr__(self, "_known", known)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._known, name)

    def __getitem__(self, name: str) -> Any:
        return self._known[name]

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(
            f"flags.{name} of an Array cannot be set; to keep an array as it is, work on x.copy()"
        )

    def __setitem__(self, name: str, value: Any) -> NoReturn:
        self.__setattr__(name.lower(), value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Flags):
            other = other._known
        return bool(self._known == other)

    __hash__ = None  # type: ignore[assignment]  # as NumPy's

    def __repr__(self) -> str:
        return repr(self._known)
