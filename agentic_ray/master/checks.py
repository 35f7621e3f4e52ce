"""Checks of what a master is told: limits, priorities, times, names."""

from __future__ import annotations

import re
from typing import Any, Final

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError

PRIORITY_LIMIT = 1_000_000
"""Priorities are between minus this and this."""

KEY_LENGTH = 255
"""Characters that the name of a user and an idempotency key may have."""

MOST_TAGS = 20
TAG_LENGTH = 64

_UNSHOWN: Final = (
    "\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u180e"
    "\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb"
)
TEXT_PATTERN: Final = f"^[^{_UNSHOWN}]+$"
"""Texts that can be shown, as a pattern of JSON schemas: without controls, marks that change how
other characters are shown."""
_TEXT: Final = re.compile(f"[^{_UNSHOWN}\\ud800-\\udfff]+")

LONGEST_SECONDS = 1e9
"""Longest time-out and deadline: 30 years. More is taken for a mistake."""


def check_limit(name: str, value: Any) -> None:
    """A positive int."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"{name} must be an int, not {value!r}")
    if value < 1:
        raise InvalidArgumentError(f"{name} must be at least 1, not {value}")


def check_priority(priority: Any) -> None:
    """An int within the limit."""
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise InvalidTypeError(f"priority must be an int, not {priority!r}")
    if abs(priority) > PRIORITY_LIMIT:
        raise InvalidArgumentError(f"priority must be within ±{PRIORITY_LIMIT}, not {priority}")


def check_seconds(name: str, seconds: Any) -> None:
    """None, or a number of seconds to come."""
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidTypeError(f"{name} must be a number, not {seconds!r}")
    if not 0 < seconds <= LONGEST_SECONDS:
        raise InvalidArgumentError(
            f"{name} must be > 0 and at most {LONGEST_SECONDS:.0f}, not {str(seconds)[:40]}"
        )


def check_text(name: str, text: Any) -> None:
    """Printable text of a usable length."""
    if not isinstance(text, str):
        raise InvalidTypeError(f"{name} must be text, not {text!r}")
    if not 0 < len(text) <= KEY_LENGTH or _TEXT.fullmatch(text) is None:
        raise InvalidArgumentError(
            f"{name} must be 1 to {KEY_LENGTH} printable characters, not {text[:40]!r}"
        )


def check_tags(tags: Any) -> tuple[str, ...]:
    """Different short texts, not too many, in their order."""
    if isinstance(tags, str) or not isinstance(tags, list | tuple):
        raise InvalidTypeError(f"tags must be a list of texts, not {type(tags).__name__}")
    if len(tags) > MOST_TAGS:
        raise InvalidArgumentError(f"at most {MOST_TAGS} tags, not {len(tags)}")
    for tag in tags:
        if not isinstance(tag, str):
            raise InvalidTypeError(f"a tag must be text, not {type(tag).__name__}")
        if not 0 < len(tag) <= TAG_LENGTH or _TEXT.fullmatch(tag) is None:
            raise InvalidArgumentError(
                f"a tag must be 1 to {TAG_LENGTH} printable characters, not {tag[:40]!r}"
            )
    return tuple(dict.fromkeys(tags))
