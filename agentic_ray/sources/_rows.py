"""Finds where rows of CSV text begin, without parsing the fields.

Pure functions over bytes or a memory map. A newline inside quotes is part of a value, so all quotes
before a newline decide whether it ends a row.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator

import numpy as np

Bytes = bytes | mmap.mmap

_QUOTE = ord('"')
_QUOTED = re.compile(rb'[^"]*+(?:""[^"]*+)*+"?')


def row_starts(data: Bytes, begin: int, step: int, delimiter: str) -> list[int]:
    """Return the starts of the first row at or after each multiple of ``step`` bytes from
    ``begin``.

    Parameters
    ----------
    data : bytes or mmap
        The text, in an encoding in which quote, newline and delimiter are single bytes.
    begin : int
        Offset at which a row starts; not in the result.
    step : int
        Bytes wanted between two starts.
    delimiter : str
        One ASCII character.

    Returns
    -------
    list of int
        Strictly rising offsets, each greater than ``begin`` and less than ``len(data)``.

    Notes
    -----
    A quote opens a quoted field only at the start of a field, and two quotes inside a field stand
    for one. Where all quotes follow that rule, an offset lies inside quotes exactly when the number
    of quotes before it is odd, because ``""`` counts twice. So the quotes are counted (and the rule
    is checked) at memory speed; text with stray quotes is scanned field by field instead.
    """
    if data.find(b'"', begin) < 0:
        return _starts_at_newlines(data, begin, step)
    parities = _parities(data, begin, step, delimiter)
    if parities is not None:
        return _starts_by_parity(data, begin, step, parities)
    return list(scanned_row_starts(data, begin, step, delimiter))


def scanned_row_starts(data: Bytes, begin: int, step: int, delimiter: str) -> Iterator[int]:
    """Yield `row_starts` one by one, by looking at each quoted field; right for any text."""
    size = len(data)
    target = begin + step
    # No quoted field opens between the two, as far as the text was looked at. It is looked at no
    # further than to the next newline that counts: a caller may want a few rows of a large file.
    unquoted_from = looked_to = begin
    while target < size:
        newline = data.find(b"\n", max(target - 1, unquoted_from))
        if newline < 0:
            return
        closing = _end_of_quoted(data, begin, looked_to, newline, delimiter)
        if closing is not None:
            unquoted_from = looked_to = closing
            continue
        looked_to = newline
        start = newline + 1
        if start < size:
            yield start
        target = begin + ((start - begin) // step + 1) * step


def row_offset(data: Bytes, number: int, delimiter: str) -> int:
    """Return the offset of the row with ``number`` others before it; empty lines are no rows."""
    last = 0
    for begin in (0, *scanned_row_starts(data, 0, 1, delimiter)):
        if data[begin : begin + 1] not in (b"\r", b"\n"):
            last = begin
            if number == 0:
                break
            number -= 1
    return last


def _end_of_quoted(
    data: Bytes, begin: int, position: int, limit: int, delimiter: str
) -> int | None:
    """Return the end of the first quoted field that opens in ``position..limit``; None if none
    does."""
    before_field = (ord(delimiter), ord("\n"), ord("\r"))
    while (quote := data.find(b'"', position, limit)) >= 0:
        position = quote + 1
        if quote == begin or data[quote - 1] in before_field:
            match = _QUOTED.match(data, position)
            return match.end() if match else position
    return None


def _starts_at_newlines(data: Bytes, begin: int, step: int) -> list[int]:
    """Return `row_starts` of a text without quotes."""
    size = len(data)
    starts: list[int] = []
    target = begin + step
    while target < size and 0 <= (newline := data.find(b"\n", target - 1)) < size - 1:
        starts.append(newline + 1)
        target = begin + ((newline + 1 - begin) // step + 1) * step
    return starts


def _parities(data: Bytes, begin: int, step: int, delimiter: str) -> list[int] | None:
    """Return the number of quotes modulo 2 before ``begin + step``, ``begin + 2 step``, …

    Return None when an opening quote is not at the start of a field.
    """
    size = len(data)
    before_quote = np.frombuffer(f'{delimiter}\n\r"'.encode("ascii"), dtype=np.uint8)
    content = np.frombuffer(data, dtype=np.uint8)
    parities: list[int] = []
    parity = 0
    for low in range(begin, size, step):
        quotes = np.flatnonzero(content[low : min(low + step, size)] == _QUOTE) + low
        opening = quotes[parity::2]
        if opening.size and opening[0] == begin:
            opening = opening[1:]
        if not np.isin(content[opening - 1], before_quote).all():
            return None
        parity = (parity + quotes.size) % 2
        parities.append(parity)
    return parities


def _starts_by_parity(data: Bytes, begin: int, step: int, parities: list[int]) -> list[int]:
    starts: list[int] = []
    size = len(data)
    for number, parity in enumerate(parities, start=1):
        target = begin + number * step
        if target >= size or (starts and target <= starts[-1]):
            continue
        start = _next_row(data, target, inside_quotes=parity == 1)
        if start is None:
            break
        starts.append(start)
    return starts


def _next_row(data: Bytes, position: int, *, inside_quotes: bool) -> int | None:
    """Return the first start of a row at or after ``position``."""
    if not inside_quotes and data[position - 1] == ord("\n"):
        return position
    while True:
        if inside_quotes:
            quote = data.find(b'"', position)
            if quote < 0:
                return None
        else:
            newline = data.find(b"\n", position)
            if newline < 0:
                return None
            quote = data.find(b'"', position, newline)
            if quote < 0:
                return newline + 1 if newline + 1 < len(data) else None
        position = quote + 1
        inside_quotes = not inside_quotes
