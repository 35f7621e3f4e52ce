"""Parts of a drawing in SVG: bars over time, a curve of memory, predicted against actual seconds.

Each part is an `<svg>` with a viewport of its own, so that a script can zoom it by its `viewBox`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from agentic_ray.pictures.spans import Lane, Span, joined
from agentic_ray.pictures.wording import bytes_text, cut, seconds_text

WIDTH = 1000.0
"""Width of what lies between the beginning and the end, in units of the drawing."""
MOST_BARS = 20_000
"""With more bars, those that touch become one, so that a browser can show them."""
FEW_BARS = 2_000
"""As `MOST_BARS`, for a picture in a notebook, whose file keeps it."""
_LEAST_WIDTH = 0.6
_MOST_LEVELS = 4_000
_MOST_DOTS = 3_000

Tip = Callable[[Span], tuple[str, str]]
"""Gives a bar attributes, and elements inside it, that tell what it stands for."""


def bars(
    rows: Sequence[Lane],
    begin: float,
    length: float,
    row_height: float,
    colour_of: Mapping[str, str],
    tip: Tip,
    most: int,
) -> list[str]:
    """Draw a bar for each span, one row a lane; with more than ``most`` join those that touch."""
    scale = WIDTH / length if length else 0.0
    many = sum(len(row.spans) for row in rows) > most
    together = max(1.0, WIDTH * len(rows) / most)
    parts = []
    gap = 0 if row_height < 4 else 1 if row_height < 8 else 2
    for i, row in enumerate(rows):
        shown = joined(row.spans, together / scale) if many and scale else row.spans
        y = row_height * i
        for span in shown:
            left = (span.start_seconds - begin) * scale
            width = max(span.seconds * scale, _LEAST_WIDTH)
            attributes, inside = tip(span)
            parts.append(
                f'<rect x="{left:.3f}" y="{y:.1f}" width="{width:.3f}" '
                f'height="{row_height - gap:.1f}" fill="{colour_of[span.codelet]}"{attributes}'
                + (f">{inside}</rect>" if inside else "/>")
            )
            if span.retried:
                parts.append(
                    f'<rect x="{left:.3f}" y="{y:.1f}" width="{width:.3f}" '
                    f'height="{max(1.0, row_height / 5):.1f}" fill="#c00000"/>'
                )
    return parts


def labels(rows: Sequence[Lane], row_height: float, top: float, most: int) -> list[str]:
    """Name the device at its first lane, where there is room between it and the one before."""
    parts: list[str] = []
    room_from = 0.0
    before: tuple[str, str] | None = None
    for i, row in enumerate(rows):
        place = (row.node_id, row.device)
        y = row_height * i
        if place != before and y >= room_from:
            text = place_text(*place, most)
            parts.append(f'<text x="4" y="{top + y + min(row_height, 14) - 3:.1f}">{text}</text>')
            room_from = y + 11
        before = place
    return parts


def place_text(node_id: str, device: str, most: int) -> str:
    """Name a node and a device in a few letters: ids of nodes and GPUs are long."""
    node = node_id if len(node_id) <= 14 else node_id[:8]
    kind = device if len(device) <= 8 else "gpu" if device != "cpu" else device
    return escape(cut(f"{node} {'' if kind == node else kind}".strip(), most))


def memory_curve(levels: Sequence[tuple[float, int]], begin: float, length: float) -> str:
    """Return the path of a step curve in a field of `WIDTH` x 100, its highest level at the top."""
    most = max((size for _, size in levels), default=0)
    if not most or not length:
        return ""
    steps = [f"M0 {100:.0f}"]
    for seconds, size in thinned(levels, length):
        x = min(max((seconds - begin) / length, 0.0), 1.0) * WIDTH
        steps.append(f"H{x:.2f}V{100 - 100 * size / most:.2f}")
    return "".join([*steps, f"H{WIDTH:.0f}V100Z"])


def thinned(levels: Sequence[tuple[float, int]], length: float) -> list[tuple[float, int]]:
    """Return at most some thousand levels: of those that are close in time the highest, and the
    last one of all."""
    if len(levels) <= _MOST_LEVELS:
        return list(levels)
    found: dict[int, tuple[float, int]] = {}
    for seconds, size in levels:
        at = int(_MOST_LEVELS * seconds / length)
        if at not in found or size >= found[at][1]:
            found[at] = (seconds, size)
    return [*found.values(), levels[-1]]


def predictions(spans: Sequence[Span], colour_of: Mapping[str, str]) -> str:
    """Draw predicted against actual seconds, both on logarithmic axes; "" without predictions.

    On the diagonal the prediction was right; the two thin lines are at half and at twice.
    """
    known = [
        (span, span.predicted_seconds)
        for span in spans
        if span.predicted_seconds is not None and span.predicted_seconds > 0 and span.seconds > 0
    ]
    if not known:
        return ""
    step = -(-len(known) // _MOST_DOTS)
    known = known[::step]
    seconds = [value for span, predicted in known for value in (span.seconds, predicted)]
    low, high = math.floor(math.log10(min(seconds))), math.ceil(math.log10(max(seconds)))
    high = max(high, low + 1)
    size, left, top = 260.0, 70.0, 12.0
    scale = size / (high - low)

    def place(actual: float, predicted: float) -> tuple[float, float]:
        x = left + (math.log10(actual) - low) * scale
        return x, top + size - (math.log10(predicted) - low) * scale

    parts = [
        f'<svg class="predictions" viewBox="0 0 {left + size + 24:.0f} {top + size + 44:.0f}" '
        f'width="{left + size + 24:.0f}" height="{top + size + 44:.0f}" font-size="10" '
        'font-family="sans-serif" role="img" aria-label="predicted against actual seconds">',
        f'<rect x="{left}" y="{top}" width="{size}" height="{size}" fill="none" '
        'stroke="currentColor" stroke-opacity="0.3"/>',
        f'<clipPath id="field"><rect x="{left}" y="{top}" width="{size}" height="{size}"/>'
        '</clipPath><g clip-path="url(#field)" stroke="currentColor">',
    ]
    for factor, dash in (
        (1.0, ""),
        (0.5, ' stroke-dasharray="3 3"'),
        (2.0, ' stroke-dasharray="3 3"'),
    ):
        (x1, y1), (x2, y2) = (place(10.0**e, factor * 10.0**e) for e in (low - 1, high + 1))
        parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke-opacity="0.4"{dash}/>'
        )
    parts.append("</g>")
    for power in range(low, high + 1):
        x, y = place(10.0**power, 10.0**power)
        text = seconds_text(10.0**power)
        parts.append(
            f'<text x="{x:.1f}" y="{top + size + 14:.1f}" text-anchor="middle">{text}</text>'
        )
        parts.append(f'<text x="{left - 5}" y="{y + 3:.1f}" text-anchor="end">{text}</text>')
    parts += [
        f'<text x="{left + size / 2}" y="{top + size + 32}" text-anchor="middle">took</text>',
        f'<text transform="translate(14 {top + size / 2}) rotate(-90)" text-anchor="middle">'
        "predicted</text>",
    ]
    for span, predicted in known:
        x, y = place(span.seconds, predicted)
        tip = f"{span.task}: predicted {seconds_text(predicted)}, took {seconds_text(span.seconds)}"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour_of[span.codelet]}" '
            f'fill-opacity="0.7"><title>{escape(tip)}</title></circle>'
        )
    return "".join([*parts, "</svg>"])


def legend(colour_of: Mapping[str, str], counts: Mapping[str, int], y: float) -> list[str]:
    """Draw the name of each codelet with its colour, as many as one line holds."""
    parts, x = [], 130.0
    for i, (name, colour) in enumerate(colour_of.items()):
        text = f"{cut(name, 28)} × {counts[name]:,}"
        if x + 20 + 6.2 * len(text) > 1120 and i < len(colour_of) - 1:
            parts.append(f'<text x="{x:.0f}" y="{y + 9}">and {len(colour_of) - i} more</text>')
            break
        parts.append(f'<rect x="{x:.0f}" y="{y}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14:.0f}" y="{y + 9}">{escape(text)}</text>')
        x += 34 + 6.2 * len(text)
    return parts


def peak_text(levels: Sequence[tuple[float, int]]) -> str:
    return f"{bytes_text(max(size for _, size in levels))} at most"
