"""Decides which encodings of text can be cut at bytes, and finds separators in them."""

from __future__ import annotations

import codecs

from agentic_ray.errors import InvalidArgumentError

# Encodings whose meaning of a byte depends on what came earlier in the file.
_STATEFUL = ("iso2022", "utf-7", "hz")
_LEAST_TRAIL = 0x30
"""No encoding of two or more bytes has a smaller second byte (GB18030 has this one)."""


def checked_encoding(encoding: str, separator: bytes = b"\n") -> str:
    """Return the normal name of an encoding in which ``separator`` can be looked for byte by byte.

    Raises
    ------
    InvalidArgumentError
        The encoding is unknown; a newline is not the single byte 0x0A in it; it keeps state from
        line to line; or the separator's bytes may be parts of other characters.
    """
    try:
        name = codecs.lookup(encoding).name
        newline = "\n".encode(name)
    except LookupError as error:
        raise InvalidArgumentError(str(error)) from error
    if name == "utf-8-sig":
        return name
    if newline != b"\n" or name.startswith(_STATEFUL):
        raise InvalidArgumentError(
            f"text in {name} cannot be split at bytes; convert it to UTF-8 first"
        )
    if max(separator) >= _LEAST_TRAIL and name != "utf-8" and not _is_of_single_bytes(name):
        raise InvalidArgumentError(
            f"{separator!r} may be part of another character in {name}, so text cannot be split "
            "there; convert it to UTF-8 first"
        )
    return name


def _is_of_single_bytes(name: str) -> bool:
    everything = bytes(range(256))
    return len(everything.decode(name, "replace")) == len(everything)


def byte_order_mark(data: bytes) -> str:
    """Return the encoding that the first bytes of a file name, empty if they name none."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return name
    return ""
