"""Draws a graph in SVG: boxes in layers, arrows from the boxes above to those below."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.pictures.saving import save
from agentic_ray.pictures.wording import colours, cut

_BOX_GAP = 18.0
_LAYER_GAP = 46.0
_LINE = 14.0
_LETTER = 6.4
_MOST_LETTERS = 34
_SWEEPS = 4
_BEND_WIDTH = 10.0


@dataclass(frozen=True, slots=True)
class Box:
    """A task, or a number of alike ones.

    Parameters
    ----------
    name : str
        Name of the operation, which also gives the colour.
    layer : int
        Number of the row, from the top; larger than those of the boxes that point here.
    count : int
        Tasks that it stands for.
    lines : tuple of str
        Further lines of text.
    tip : str
        Text of the tooltip.
    """

    name: str
    layer: int
    count: int = 1
    lines: tuple[str, ...] = ()
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Arrow:
    """The ``count`` values that go from box number ``source`` to box number ``target``."""

    source: int
    target: int
    count: int = 1


@dataclass(frozen=True)
class Drawing:
    """A drawing in SVG. A notebook shows it; `save` writes it to a file.

    Parameters
    ----------
    title : str
    text : str
        The SVG document.
    """

    title: str
    text: str = field(repr=False)

    def svg(self) -> str:
        """Return the SVG document."""
        return self.text

    def html(self) -> str:
        """Return a page with the drawing, which needs no network."""
        title = escape(self.title)
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f"<title>{title}</title><style>:root{{color-scheme:light dark}}"
            "body{font:14px system-ui,sans-serif}</style></head>"
            f"<body><h1>{title}</h1>\n{self.text}</body></html>\n"
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the drawing to a file that ends with ``.svg`` or ``.html``; return its path.

        Raises
        ------
        InvalidArgumentError
            It ends with something else.
        """
        return save(path, {".svg": self.svg, ".html": self.html})

    def _repr_html_(self) -> str:
        return self.text


@dataclass(slots=True)
class _Place:
    """A box, or a bend of an arrow that passes a layer, on the paper."""

    width: float
    height: float
    box: int | None = None
    x: float = 0.0
    y: float = 0.0
    above: list[int] = field(default_factory=list)
    below: list[int] = field(default_factory=list)

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def draw(title: str, boxes: Sequence[Box], arrows: Sequence[Arrow]) -> Drawing:
    """Draw boxes, layer by layer, and arrows between them.

    Arrows to a layer further down bend around the boxes between. In each layer the boxes are
    sorted so that few arrows cross: each goes near the mean place of those it is joined to.

    Raises
    ------
    InvalidArgumentError
        An arrow does not go down, or names a box that is not there.

    Examples
    --------
    >>> from agentic_ray.pictures import Arrow, Box, draw
    >>> drawing = draw("two steps", [Box("load", 0, 4), Box("sum", 1)], [Arrow(0, 1, 4)])
    >>> drawing
    Drawing(title='two steps')
    >>> drawing.svg().count("<rect")
    2
    """
    places, layers, ways = _arranged(boxes, arrows)
    for _ in range(_SWEEPS):
        for layer in layers[1:]:
            _sort(layer, places, lambda place: place.above)
        for layer in layers[-2::-1]:
            _sort(layer, places, lambda place: place.below)
    width, height = _laid_out(layers, places)
    colour_of = colours(list(dict.fromkeys(box.name for box in boxes)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" style="max-width:100%" font-family="sans-serif" font-size="11" '
        f'fill="currentColor" role="img" aria-label="{escape(title, quote=True)}">',
    ]
    for arrow, way in zip(arrows, ways, strict=True):
        parts += _arrow(arrow, [places[number] for number in way])
    for place in places:
        if place.box is not None:
            parts += _box(boxes[place.box], place, colour_of)
    return Drawing(title, "\n".join([*parts, "</svg>", ""]))


def _arranged(
    boxes: Sequence[Box], arrows: Sequence[Arrow]
) -> tuple[list[_Place], list[list[int]], list[list[int]]]:
    """Return the places, their numbers by layer, and for each arrow the places on its way."""
    places: list[_Place] = []
    layers: list[list[int]] = [[] for _ in range(1 + max((b.layer for b in boxes), default=-1))]
    for number, box in enumerate(boxes):
        texts = [_title(box), *box.lines]
        longest = max(min(len(text), _MOST_LETTERS) for text in texts)
        places.append(_Place(24 + _LETTER * longest, 12 + _LINE * len(texts), number))
        layers[box.layer].append(number)
    ways: list[list[int]] = []
    for arrow in arrows:
        if not (0 <= arrow.source < len(boxes) and 0 <= arrow.target < len(boxes)):
            raise InvalidArgumentError(f"{arrow} names a box that is not there")
        first, last = boxes[arrow.source].layer, boxes[arrow.target].layer
        if first >= last:
            raise InvalidArgumentError(f"{arrow} does not go down")
        way = [arrow.source]
        for layer in range(first + 1, last):
            way.append(len(places))
            layers[layer].append(len(places))
            places.append(_Place(_BEND_WIDTH, 0.0))
        way.append(arrow.target)
        for one, other in itertools.pairwise(way):
            places[one].below.append(other)
            places[other].above.append(one)
        ways.append(way)
    for layer_places in layers:
        _set_out(layer_places, places, 0.0)
    return places, layers, ways


def _sort(layer: list[int], places: list[_Place], joined: Callable[[_Place], list[int]]) -> None:
    """Sort a layer by the mean place of what its boxes are joined to."""

    def wanted(number: int) -> float:
        others = joined(places[number])
        if not others:
            return places[number].middle
        return sum(places[other].middle for other in others) / len(others)

    layer.sort(key=wanted)
    means = [wanted(number) for number in layer]
    _set_out(layer, places, 0.0)
    if layer:  # move the layer as a whole towards what it is joined to
        now = [places[number].middle for number in layer]
        shift = sum(means) / len(means) - sum(now) / len(now)
        for number in layer:
            places[number].x += shift


def _set_out(layer: list[int], places: list[_Place], x: float) -> None:
    for number in layer:
        places[number].x = x
        x += places[number].width + _BOX_GAP


def _laid_out(layers: list[list[int]], places: list[_Place]) -> tuple[float, float]:
    """Give each layer its height, and shift all so that nothing is left of the edge; return the
    size of the drawing."""
    y = 8.0
    for layer in layers:
        height = max((places[number].height for number in layer), default=0.0)
        for number in layer:
            places[number].y = y + (height - places[number].height) / 2
        y += height + _LAYER_GAP
    left = min((place.x for place in places), default=0.0)
    for place in places:
        place.x += 8 - left
    right = max((place.x + place.width for place in places), default=0.0)
    return right + 8, max(y - _LAYER_GAP + 8, 16.0)


def _arrow(arrow: Arrow, way: list[_Place]) -> list[str]:
    x, y = way[0].middle, way[0].y + way[0].height
    steps = [f"M{x:.1f} {y:.1f}"]
    label_at = (x, y)
    for number, place in enumerate(way[1:], 1):
        to_x, to_y = place.middle, place.y
        half = (to_y - y) / 2
        steps.append(f"C{x:.1f} {y + half:.1f} {to_x:.1f} {to_y - half:.1f} {to_x:.1f} {to_y:.1f}")
        if number == 1:
            label_at = ((x + to_x) / 2, y + half)
        x, y = to_x, to_y
    parts = [
        f'<path d="{"".join(steps)}" fill="none" stroke="#888" '
        f'stroke-width="{1.0 if arrow.count == 1 else 1.6}"/>',
        f'<path d="M{x - 3.5:.1f} {y - 7:.1f}L{x:.1f} {y:.1f}L{x + 3.5:.1f} {y - 7:.1f}z" '
        'fill="#888"/>',
    ]
    if arrow.count > 1:
        parts.append(
            f'<text x="{label_at[0] + 4:.1f}" y="{label_at[1] + 3:.1f}" font-size="9" '
            f'fill-opacity="0.75">{arrow.count:,}</text>'
        )
    return parts


def _title(box: Box) -> str:
    return box.name if box.count == 1 else f"{cut(box.name, 24)} × {box.count:,}"


def _box(box: Box, place: _Place, colour_of: dict[str, str]) -> list[str]:
    colour = colour_of[box.name]
    tip = f"<title>{escape(box.tip or box.name)}</title>"
    parts = [
        f'<g><rect x="{place.x:.1f}" y="{place.y:.1f}" width="{place.width:.1f}" '
        f'height="{place.height:.1f}" rx="4" fill="{colour}" fill-opacity="0.18" '
        f'stroke="{colour}" stroke-width="1.4"/>{tip}'
    ]
    for number, text in enumerate([_title(box), *box.lines]):
        weight = ' font-weight="600"' if number == 0 else ' font-size="10" fill-opacity="0.8"'
        parts.append(
            f'<text x="{place.middle:.1f}" y="{place.y + 17 + _LINE * number:.1f}" '
            f'text-anchor="middle"{weight}>{escape(cut(text, _MOST_LETTERS))}</text>'
        )
    return [*parts, "</g>"]
