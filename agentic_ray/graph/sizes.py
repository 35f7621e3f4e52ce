"""Sizes in bytes as people write them."""

from __future__ import annotations

import re

from agentic_ray.errors import InvalidArgumentError


def parse_bytes(text: str) -> int:
    """A size such as ``"1 MB"`` (a million bytes), ``"64MiB"`` or ``"100"``.

    Raises
    ------
    InvalidArgumentError
        It is no size, or less than a byte.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmgtp]?)(i?)b?\s*", text, re.IGNORECASE)
    if found is None or (found[3] and not found[2]):
        raise InvalidArgumentError(
            f"expected a size such as '1 MB', or 'auto' and numbers for chunks, not {text!r}"
        )
    power = " kmgtp".index(found[2].lower() or " ")
    size = int(float(found[1]) * (1024 if found[3] else 1000) ** power)
    if size < 1:
        raise InvalidArgumentError(f"a size is at least one byte, not {text!r}")
    return size
