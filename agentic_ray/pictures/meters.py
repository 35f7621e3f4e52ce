"""Small bars that show how much of something is taken."""

from __future__ import annotations

from html import escape

_WIDTH = 90


def meter(share: float | None, text: str, colour: str = "#4477aa") -> str:
    """Return HTML of a bar that is filled by ``share`` (0 to 1), with a text behind it.

    Without a share, because it could not be read, there is only the text.

    Examples
    --------
    >>> "width='45.0'" in meter(0.5, "half")
    True
    """
    if share is None:
        return escape(text)
    filled = _WIDTH * min(max(share, 0.0), 1.0)
    return (
        f"<svg width='{_WIDTH}' height='10' role='img' aria-label='{share:.0%}'>"
        f"<rect width='{_WIDTH}' height='10' rx='2' fill='currentColor' fill-opacity='0.12'/>"
        f"<rect width='{filled:.1f}' height='10' rx='2' fill='{colour}'/></svg> {escape(text)}"
    )
