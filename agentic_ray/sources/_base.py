"""Interface of a source of data: a list of parts, each read where it is used.

Also the one rule for part sizes. ``_files`` finds and unpacks files; the formats are in the modules
named after them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError

Unit = Literal["element", "block"]

_MIB = 1 << 20
_SMALLEST_PART_BYTES = _MIB
_LARGEST_PART_BYTES = 64 * _MIB
_PARTS_WANTED = 64


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a source, small enough to travel: it names data and does not hold it.

    Parameters
    ----------
    label : str
        For people, for example ``flights.csv[0:1048576]``.
    bytes : int
        Estimated size of the data in bytes.
    items : int or None
        Number of logical elements (lines, rows) when it is known without reading.
    unit : {"element", "block"}
        ``"element"``: a map function is called for every element that `load` returns; ``"block"``:
        it is called once, with the loaded value.
    read : callable
        Reads the data; called without arguments, picklable.
    """

    label: str
    bytes: int
    items: int | None
    unit: Unit
    read: Callable[[], Any]

    def load(self) -> Any:
        """Read the data: a sequence of elements, or for a block one value (a ``pyarrow.Table``).

        Raises
        ------
        FileNotFoundError
            The file is not there on this node.
        SourceError
            The file is damaged, has changed since it was planned, or does not fit its schema.
        """
        return self.read()


@runtime_checkable
class Source(Protocol):
    """Data that is read in parts."""

    def parts(self) -> list[Part]:
        """Return the parts in order. Equal files give equal parts, whatever the cluster."""
        ...


def chosen_part_bytes(
    part_bytes: int | Literal["auto"], total_bytes: int, parts: int = _PARTS_WANTED
) -> int:
    """Return the bytes of a part of a file of ``total_bytes``.

    ``"auto"`` is a 64th of the file (or another ``parts``-th), as a power of two between 1 MiB and
    64 MiB. It depends on the file's size and on nothing else, so that floating point results have
    the same bits on every cluster.
    """
    if part_bytes == "auto":
        wanted = 1 << (max(total_bytes // parts, 1) - 1).bit_length()
        return min(max(wanted, _SMALLEST_PART_BYTES), _LARGEST_PART_BYTES)
    return part_bytes


def check_part_bytes(part_bytes: int | Literal["auto"]) -> None:
    """Refuse anything but ``"auto"`` or a number of bytes from 1 to 1 GiB."""
    if part_bytes == "auto":
        return
    if not isinstance(part_bytes, int) or isinstance(part_bytes, bool):
        raise InvalidTypeError(f"part_bytes must be an int or 'auto', not {part_bytes!r}")
    if not 1 <= part_bytes <= 1 << 30:
        raise InvalidArgumentError(f"part_bytes must be from 1 to 2**30, not {part_bytes}")


def checked_columns(columns: Sequence[str] | None) -> tuple[str, ...] | None:
    """Check names of columns to read: they must be a sequence, not empty and distinct."""
    if columns is None:
        return None
    if isinstance(columns, str):
        raise InvalidTypeError(f"columns must be a sequence of str, not the str {columns!r}")
    if not columns:
        raise InvalidArgumentError("columns names no column")
    if len(set(columns)) < len(columns):
        raise InvalidArgumentError(f"columns names a column twice: {', '.join(columns)}")
    return tuple(columns)
