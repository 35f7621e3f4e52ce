"""Draws an array: a box of its last three axes, with the borders of its chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence

_LONGEST = 150.0
_SHORTEST = 14.0
_SLANT = (0.55, 0.42)
"""Share of an axis's length by which the axis that goes into the depth moves right and down."""
_MOST_LINES = 40
_FACES = ("#e8eef6", "#d5dfec", "#c1cfe0")


def chunks_svg(chunks: Sequence[Sequence[int]], *, colour: str = "#4477aa") -> str:
    """Draw an array that is cut in chunks; "" for one without axes or elements.

    Parameters
    ----------
    chunks : sequence of sequence of int
        Lengths of the chunks along each axis. Of the axes before the last three only the number
        of chunks is told.
    colour : str
        Colour of the borders.

    Examples
    --------
    >>> chunks_svg([(2, 2), (3,)]).count("<line")
    1
    """
    shape = [sum(axis) for axis in chunks]
    if not shape or 0 in shape:
        return ""
    shown = [list(axis) for axis in chunks[-3:]]
    others = shape[:-3]
    if len(shown) == 1:
        shown = [[1], shown[0]]
    sizes = _sizes([sum(axis) for axis in shown])
    faces = _Faces(colour)
    if len(shown) == 2:
        h, w = sizes
        faces.add((0.0, 0.0), (w, 0.0), (0.0, h), shown[1], shown[0], _FACES[0])
        corner = (w, h)
        depth = 0.0, 0.0
    else:
        d, h, w = sizes
        depth = (_SLANT[0] * d, _SLANT[1] * d)
        faces.add((0.0, 0.0), (w, 0.0), depth, shown[2], shown[0], _FACES[1])
        faces.add((0.0, 0.0), (0.0, h), depth, shown[1], shown[0], _FACES[2])
        faces.add(depth, (w, 0.0), (0.0, h), shown[2], shown[1], _FACES[0])
        corner = (w + depth[0], h + depth[1])
    texts = [_text(corner[0] / 2 + depth[0] / 2, corner[1] + 14, f"{shape[-1]:,}")]
    if len(shape) > 1:
        texts.append(
            _text(corner[0] + 6, depth[1] + sizes[-2] / 2 + 4, f"{shape[-2]:,}", anchor="start")
        )
    if len(shape) > 2:
        texts.append(_text(depth[0] / 2 - 4, corner[1] + 2, f"{shape[-3]:,}", anchor="end"))
    left = 8.0 if len(shape) < 3 else max(8.0, 7.0 * len(f"{shape[-3]:,}") - depth[0] / 2 + 8)
    if others:
        count = math.prod(len(axis) for axis in chunks[:-3])
        text = f"{' × '.join(f'{length:,}' for length in others)} × this, in {count:,} × its chunks"
        texts.append(_text(-left + 2, corner[1] + 30, text, anchor="start"))
    width = max(
        left + corner[0] + 14 + 7 * len(f"{shape[-2]:,}" if len(shape) > 1 else ""),
        6.5 * 60 if others else 0,
    )
    height = corner[1] + (38 if others else 22) + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="{-left:.0f} -4 {width:.0f} {height:.0f}" font-family="sans-serif" '
        f'font-size="11" fill="currentColor" role="img" aria-label="chunks">'
        f"{''.join(faces.parts)}{''.join(texts)}</svg>"
    )


def _sizes(lengths: Sequence[int]) -> list[float]:
    """Return drawn lengths: in proportion, but none so short that it cannot be seen."""
    longest = max(lengths)
    return [max(_SHORTEST, _LONGEST * length / longest) for length in lengths]


class _Faces:
    """Sides of a box, each with the lines between its chunks."""

    def __init__(self, colour: str) -> None:
        self.parts: list[str] = []
        self._colour = colour

    def add(
        self,
        corner: tuple[float, float],
        across: tuple[float, float],
        down: tuple[float, float],
        columns: Sequence[int],
        rows: Sequence[int],
        fill: str,
    ) -> None:
        """Draw the side that ``across`` and ``down`` span from ``corner``."""
        (x, y), (ax, ay), (dx, dy) = corner, across, down
        points = [(x, y), (x + ax, y + ay), (x + ax + dx, y + ay + dy), (x + dx, y + dy)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        self.parts.append(
            f'<polygon points="{path}" fill="{fill}" stroke="{self._colour}" stroke-width="1.2"/>'
        )
        for lengths, (alx, aly), (ox, oy) in ((columns, across, down), (rows, down, across)):
            for share in _borders(lengths):
                x1, y1 = x + share * alx, y + share * aly
                self.parts.append(
                    f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x1 + ox:.1f}" y2="{y1 + oy:.1f}" '
                    f'stroke="{self._colour}" stroke-width="0.7"/>'
                )


def _borders(lengths: Sequence[int]) -> list[float]:
    """Return where chunks meet, as shares of the axis; of very many only some."""
    total, at = sum(lengths), 0
    step = max(1, len(lengths) // _MOST_LINES)
    found = []
    for number, length in enumerate(lengths[:-1], 1):
        at += length
        if number % step == 0:
            found.append(at / total)
    return found


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
